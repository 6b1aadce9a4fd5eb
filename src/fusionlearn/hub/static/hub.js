// A live page asks for itself again every three seconds and shows what changed. Without JavaScript it reloads instead.
// It pauses while something in a form is chosen or focused, so that nobody's click is lost.
"use strict";
const PAUSE = 3000;

function busy() {
  const active = document.activeElement;
  return document.querySelector("main input:checked") !== null || (active !== null && active.matches("main input, main button, main select"));
}

async function refresh() {
  if (!document.hidden && !busy()) {
    try {
      const answer = await fetch(location.pathname, { headers: { Accept: "text/html" } });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("main");
        const main = document.querySelector("main");
        if (fresh && !busy() && fresh.innerHTML !== main.innerHTML) { main.replaceWith(fresh); }
        if (!page.body.dataset.live) { return; }
      }
    } catch { /* the hub is away for now: try again */ }
  }
  setTimeout(refresh, PAUSE);
}

if (document.body.dataset.live) { setTimeout(refresh, PAUSE); }
