// Problem by problem: what a model answered, alone or beside another. Text only ever enters the page as textContent.
"use strict";
(() => {
  const form = document.getElementById("controls");
  if (!form) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const ids = ["model", "other", "task", "query", "cut", "verdicts", "status", "list", "more"];
  const [model, other, task, query, cut, verdicts, status, list, more] = ids.map((id) => document.getElementById(id));
  const PAGE = 15, EVERY = "*", ALL = "all";
  const ORDER = ["won", "lost", "both right", "both wrong", "all right", "some right", "none right", ...data.kinds];
  let shown = PAGE, verdict = ALL;

  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function option(select, value, text) {
    const node = element("option", "", text);
    node.value = value;
    select.append(node);
  }

  // A verdict is a letter, the place of its kind; a capital one where a limit cut the response. A packed row is
  // [score, strict, answer, reason, response, tokens], or null; a problem [id, prompt, gold], or [id] without its texts.
  function answerOf(cell, place) {
    const letter = cell.verdicts[place];
    if (letter === undefined || letter === "-") return null;
    const [score, strict, answer, reason, response, tokens] = cell.rows[place] || [];
    const kind = data.kinds[letter.toLowerCase().charCodeAt(0) - 97];
    return { model: cell.model, kind, right: data.right.includes(kind), truncated: letter < "a", score, strict, answer, reason, response, tokens };
  }

  // Each problem of the chosen task, or of all, that the chosen models answered, the first model's answer first.
  function entries() {
    const found = [];
    for (const name of task.value === "" ? data.tasks : [task.value]) {
      const of = (model) => data.cells.find((cell) => cell.task === name && cell.model === model);
      const models = other.value === EVERY ? data.models : other.value === "" ? [model.value] : [model.value, other.value];
      const cells = models.map(of).filter((cell) => cell !== undefined);
      if (other.value !== EVERY && cells.length < models.length) continue;
      data.problems[name].forEach(([id, prompt, gold], place) => {
        const answers = cells.map((cell) => answerOf(cell, place)).filter((answer) => answer !== null);
        if (answers.length === cells.length || (other.value === EVERY && answers.length)) found.push({ task: name, id, prompt, gold, answers });
      });
    }
    return found;
  }

  function category(entry) {
    const [a, b] = entry.answers;
    if (other.value === "") return a.kind;
    const right = entry.answers.filter((answer) => answer.right).length;
    if (other.value === EVERY) return right === 0 ? "none right" : right === entry.answers.length ? "all right" : "some right";
    return right === 2 ? "both right" : right === 0 ? "both wrong" : a.right ? "won" : "lost";
  }

  function holds(entry, phrase) {
    if (cut.checked && !entry.answers.some((answer) => answer.truncated)) return false;
    const texts = entry.answers.flatMap((answer) => [answer.response, answer.answer]);
    return !phrase || [entry.id, entry.prompt, entry.gold, ...texts].join("\n").toLowerCase().includes(phrase);
  }

  function facts(answer) {
    const node = element("p", "facts");
    const sign = answer.right ? "✓ " : answer.kind === "not graded" ? "? " : "✗ ";
    node.append(element("b", "", answer.model), element("span", answer.right ? "verdict right" : "verdict wrong", sign + answer.kind));
    if (answer.score > 0 && answer.score < 1) node.append(element("span", "", "score " + answer.score.toFixed(2)));
    if (answer.answer != null) {
      const read = element("span", "", "read as ");
      read.append(element("b", "", answer.answer.length > 80 ? answer.answer.slice(0, 80) + "…" : answer.answer));
      node.append(read);
    }
    if (answer.tokens != null) node.append(element("span", "", answer.tokens + " tokens"));
    if (answer.truncated) node.append(element("span", "", "at the length limit"));
    return node;
  }

  function block(head, text) {
    const node = element("div"), words = element("p", text ? "text" : "text empty", text || "nothing");
    words.tabIndex = 0;
    node.append(typeof head === "string" ? element("p", "facts", head) : head, words);
    return node;
  }

  function card(entry) {
    const node = element("article", "sample"), answers = element("div", "columns answers");
    node.append(element("h4", "", task.value === "" ? `${entry.task}: ${entry.id}` : entry.id));
    if (entry.prompt === undefined) {
      answers.append(...entry.answers.map(facts));
      const files = entry.answers.map((answer) => `evaluation/${answer.model}/${entry.task}.jsonl`);
      node.append(answers, element("p", "caption", "Its texts are not in this page but in " + files.join(", ") + "."));
      return node;
    }
    // One answer stands beside its problem, several below it.
    const single = entry.answers.length === 1, problem = element("div", single ? "problem" : "columns");
    problem.append(block("Prompt", entry.prompt), block("Gold", entry.gold));
    const blocks = entry.answers.map((answer) => block(facts(answer), answer.response));
    if (single) answers.className = "columns";
    answers.append(...(single ? [problem] : []), ...blocks);
    node.append(...(single ? [] : [problem]), answers);
    return node;
  }

  function showVerdicts(counts, total) {
    const focused = verdicts.contains(document.activeElement);
    const names = [ALL, ...ORDER.filter((name) => counts.has(name) || name === verdict)];
    verdicts.replaceChildren(verdicts.firstElementChild, ...names.map((name) => {
      const label = element("label"), input = element("input");
      [input.type, input.name, input.value, input.checked] = ["radio", "verdict", name, name === verdict];
      const count = name === ALL ? total : counts.get(name) || 0;
      label.append(input, element("span", "", `${name} ${count.toLocaleString("en")}`));
      return label;
    }));
    if (focused) verdicts.querySelector(":checked").focus();
  }

  function comparison() {
    const name = task.value === "" && data.tasks.length > 1 ? "pooled" : task.value || data.tasks[0];
    const pair = [model.value, other.value];
    const found = data.comparisons.find(([a, b, on]) => on === name && pair.includes(a) && pair.includes(b));
    if (found) return ` ${found[0]} − ${found[1]}: ${found[3]}.`;
    return " This pair is not among the run’s comparisons; smallwit compare tests it.";
  }

  function update() {
    const phrase = query.value.toLowerCase().trim();
    const every = entries(), asked = every.filter((entry) => holds(entry, phrase));
    const counts = new Map();
    for (const entry of asked) counts.set(category(entry), (counts.get(category(entry)) || 0) + 1);
    showVerdicts(counts, asked.length);
    const kept = asked.filter((entry) => verdict === ALL || category(entry) === verdict);
    kept.sort((a, b) => (a.prompt === undefined) - (b.prompt === undefined));
    list.replaceChildren(...kept.slice(0, shown).map(card));
    more.hidden = kept.length <= shown;
    const inside = every.filter((entry) => entry.prompt !== undefined).length;
    const left = data.cells.some((cell) => cell.model === model.value && cell.total > cell.verdicts.length);
    status.textContent = `${kept.length.toLocaleString("en")} of ${every.length.toLocaleString("en")} problems` +
      (other.value && other.value !== EVERY ? ` that both answered: won is right with ${model.value} alone.` + comparison() : ".") +
      ` The texts of ${inside.toLocaleString("en")} are in this page, and only these are searched.` +
      (left ? " The run has more problems than this page lists." : "");
  }

  // The fragment of the address holds what is chosen, so that a link leads to it.
  function save() {
    const state = { model: model.value, other: other.value, task: task.value, verdict, q: query.value, cut: cut.checked ? "1" : "" };
    history.replaceState(null, "", "#" + new URLSearchParams(Object.entries(state).filter(([, value]) => value !== "")));
  }

  function load() {
    const state = new URLSearchParams(location.hash.slice(1));
    if (!state.has("model")) return false;
    for (const [select, key] of [[model, "model"], [other, "other"], [task, "task"]]) {
      const wanted = state.get(key) || "";
      if ([...select.options].some((each) => each.value === wanted)) select.value = wanted;
    }
    verdict = ORDER.includes(state.get("verdict")) ? state.get("verdict") : ALL;
    [query.value, cut.checked, shown] = [state.get("q") || "", state.has("cut"), PAGE];
    return true;
  }

  function changed(event) {
    if (event.target.name === "verdict") verdict = event.target.value;
    else if ([model, other].includes(event.target)) verdict = ALL;
    shown = PAGE;
    save();
    update();
  }

  for (const name of data.models) option(model, name, name);
  option(other, "", "no other");
  for (const name of data.models) option(other, name, name);
  option(other, EVERY, "all models");
  for (const name of data.tasks) option(task, name, name);
  if (data.tasks.length > 1) option(task, "", "all tasks");
  model.value = data.first;
  const linked = load();
  form.addEventListener("change", changed);
  query.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { if (load()) update(); });
  more.addEventListener("click", () => { shown += PAGE; update(); });
  form.hidden = false;
  update();
  // A page that is loaded again keeps its place by itself.
  if (linked && performance.getEntriesByType("navigation")[0].type !== "reload") document.getElementById("problems").scrollIntoView({ behavior: "instant" });
})();
