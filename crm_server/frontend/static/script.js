"use strict";
// The pages are complete without this: it adds keys, the reader's own time, and word of what has arrived.

const byId = (id) => document.getElementById(id);
const requests = () => [...document.querySelectorAll("[data-request]")];
const boxOf = (link) => link && link.closest("li").querySelector("input[type=checkbox]");
const checked = () => document.querySelector(".requests input:checked");
const follow = (rel) => document.querySelector(`a[rel=${rel}]`)?.click();

function here() {
  return document.activeElement.closest(".requests > li")?.querySelector("[data-request]");
}

function move(step) {
  const all = requests();
  if (!all.length) return follow(step > 0 ? "next" : "prev");
  const place = all.indexOf(here());
  all[place < 0 ? 0 : Math.min(all.length - 1, Math.max(0, place + step))].focus();
}

// What is decided is what is selected; without a selection, the request in focus.
function choose() {
  if (!requests().length || checked()) return true;
  const box = boxOf(here());
  if (box) box.checked = true;
  return Boolean(box);
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  o: () => here()?.click(),
  x: () => boxOf(here())?.click(),
  a: () => choose() && byId("approve")?.click(),
  r: () => choose() && byId("reason")?.focus(),
  "/": () => byId("search")?.focus(),
  "?": () => byId("keys")?.showModal(),
};

const isTyping = (element) => element.matches("input:not([type=checkbox]), textarea, select");
const keysOn = byId("keys-on");
if (keysOn) {
  keysOn.checked = localStorage.getItem("keys") !== "off";
  keysOn.addEventListener("change", () => localStorage.setItem("keys", keysOn.checked ? "on" : "off"));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.ctrlKey && event.target.id === "reason") return byId("reject").click();
  const act = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
  if (!act || !keysOn?.checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  act();
});

for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = time.textContent;
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// After a decision the list goes on where it was.
const list = document.querySelector(".requests");
if (list) {
  const place = sessionStorage.getItem("place");
  sessionStorage.removeItem("place");
  if (place !== null && document.querySelector(".done")) requests()[Math.min(place, requests().length - 1)]?.focus();
  list.closest("form")?.addEventListener("submit", () => {
    const first = checked();
    const links = requests();
    if (first) sessionStorage.setItem("place", links.findIndex((link) => boxOf(link) === first));
  });
}

const arrived = byId("arrived");
if (arrived) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(`${arrived.dataset.url}?since=${arrived.dataset.since}`);
      if (!answer.ok || answer.redirected) return clearInterval(timer);
      const { count } = await answer.json();
      if (!count || arrived.dataset.count === String(count)) return;
      arrived.dataset.count = count;
      const link = document.createElement("a");
      link.href = arrived.dataset.show;
      link.textContent = `${count} new ${count === 1 ? "request" : "requests"} — show`;
      arrived.replaceChildren(link);
    } catch {
      // The server is away for a moment: it is asked again.
    }
  }, 10000);
}
