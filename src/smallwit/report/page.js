// The browser of samples. Text only ever enters the page as textContent, never as markup.
"use strict";
(() => {
  const form = document.getElementById("controls");
  if (!form) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const [model, task, query, status, list, more] = ["model", "task", "query", "status", "list", "more"].map((id) => document.getElementById(id));
  const PAGE = 15;
  let shown = PAGE;

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

  // A packed row is [problem, score, strict, answer, reason, response, tokens, truncated]; a problem [id, prompt, gold].
  function unpack(cell, row) {
    const [place, score, strict, answer, reason, response, tokens, truncated] = row;
    const [id, prompt, gold] = data.problems[cell.task][place];
    return { model: cell.model, place, id, prompt, gold, score, strict, answer, reason, response, tokens, truncated };
  }

  function kind(sample) {
    return sample.score === null ? "ungraded" : sample.score === 1 ? "right" : "wrong";
  }

  function matches(sample, verdict, phrase) {
    if (verdict !== "all" && kind(sample) !== verdict) return false;
    const text = [sample.id, sample.prompt, sample.response, sample.gold, sample.answer].join("\n").toLowerCase();
    return text.includes(phrase);
  }

  function fact(parent, label, value) {
    const node = element("span", "", label + " ");
    node.append(element("b", "", value));
    parent.append(node);
  }

  function facts(sample, withModel) {
    const node = element("p", "facts");
    const badge = { right: "✓ right", wrong: "✗ wrong", ungraded: "? not graded" }[kind(sample)];
    node.append(element("span", "verdict " + kind(sample), badge));
    if (withModel) node.append(element("b", "", sample.model));
    if (sample.score !== null && sample.score > 0 && sample.score < 1) fact(node, "score", sample.score.toFixed(2));
    if (sample.strict !== null && sample.strict !== sample.score) fact(node, "strict", String(sample.strict));
    if (sample.answer !== null) fact(node, "read as", sample.answer.length > 80 ? sample.answer.slice(0, 80) + "…" : sample.answer);
    if (sample.reason && !["correct", "wrong"].includes(sample.reason)) node.append(element("span", "", sample.reason));
    if (sample.tokens !== null) node.append(element("span", "", sample.tokens + " tokens"));
    if (sample.truncated) node.append(element("span", "", "truncated"));
    return node;
  }

  function block(head, text) {
    const node = element("div");
    if (typeof head === "string") {
      const line = element("p", "facts");
      line.append(element("span", "", head));
      head = line;
    }
    node.append(head, text ? element("p", "text", text) : element("p", "text empty", "nothing"));
    return node;
  }

  function card(samples, withModel) {
    const [first] = samples;
    const node = element("article", "sample");
    node.append(element("h4", "", first.id));
    const problem = [block("Prompt", first.prompt), block("Gold", first.gold)];
    const columns = element("div", "columns");
    if (withModel) {
      columns.append(...problem);
      const answers = element("div", "columns answers");
      for (const sample of samples) answers.append(block(facts(sample, true), sample.response));
      node.append(columns, answers);
    } else {
      const left = element("div", "problem");
      left.append(...problem);
      columns.append(left, block(facts(first, false), first.response));
      node.append(columns);
    }
    return node;
  }

  function update() {
    const verdict = form.elements.verdict.value;
    const phrase = query.value.toLowerCase().trim();
    const every = model.value === "";
    const cells = data.cells.filter((cell) => cell.task === task.value && (every || cell.model === model.value));
    const groups = new Map();
    let right = 0, total = 0, embedded = 0;
    for (const cell of cells) {
      total += cell.total;
      right += cell.right;
      embedded += cell.rows.length;
      for (const row of cell.rows) {
        const sample = unpack(cell, row);
        if (!groups.has(sample.place)) groups.set(sample.place, []);
        groups.get(sample.place).push(sample);
      }
    }
    // With all models, a problem stays whole as soon as one of its responses is asked for.
    const kept = [...groups.values()].filter((group) => group.some((sample) => matches(sample, verdict, phrase)));
    // Problems that more of the models share come first: those are the ones to compare.
    if (every) kept.sort((a, b) => b.length - a.length);
    list.replaceChildren(...kept.slice(0, shown).map((group) => card(group, every)));
    more.hidden = kept.length <= shown;
    const found = `${kept.length} ${every ? "problems" : kept.length === 1 ? "sample" : "samples"} found`;
    status.textContent = !cells.length
      ? "No samples of this model on this task."
      : `${found}; ${embedded.toLocaleString("en")} of ${total.toLocaleString("en")} samples are in this file` +
        (embedded < total ? " (evenly spaced, and more of the rarer verdict)" : "") +
        `. Of all ${total.toLocaleString("en")}, ${right.toLocaleString("en")} are right.`;
  }

  function restart() {
    shown = PAGE;
    update();
  }

  for (const name of data.models) option(model, name, name);
  option(model, "", "all, by problem");
  for (const name of data.tasks) option(task, name, name);
  model.value = data.first;
  form.addEventListener("change", restart);
  query.addEventListener("input", restart);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { shown += PAGE; update(); });
  form.hidden = false;
  update();
})();
