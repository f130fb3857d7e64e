// In a page of `smallwit watch`: load the page again when the run has something new. Its fragment has what is chosen.
"use strict";
(() => {
  const shown = document.documentElement.dataset.version;
  async function look() {
    const reply = await fetch("version").catch(() => null);
    const typing = document.activeElement && document.activeElement.id === "query";
    if (reply && reply.ok && (await reply.text()) !== shown && !typing) location.reload();
    else setTimeout(look, 3000);
  }
  setTimeout(look, 3000);
})();
