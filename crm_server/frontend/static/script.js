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

const isTyping = (element) => element.matches("input:not([type=checkbox], [type=radio]), textarea, select");
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

function writeTimes() {
  for (const time of document.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}
writeTimes();

// A second click on a slow line sends nothing. After a while one does: an answer may be a file, or never come.
const underWay = new Set();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (underWay.has(form)) return event.preventDefault();
  underWay.add(form);
  setTimeout(() => underWay.delete(form), 10_000);
});
addEventListener("pageshow", () => underWay.clear());

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

// Asks while the page is seen, and says that nobody else did, until `show` returns that it was the last time.
function poll(url, seconds, show) {
  setTimeout(async () => {
    let isOver = false;
    try {
      if (!document.hidden) {
        const answer = await fetch(url, { headers: { "x-polled": "1" } });
        isOver = answer.ok && !answer.redirected ? await show(answer) : answer.status < 500;
      }
    } catch {
      // The server is away for a moment: it is asked again.
    }
    if (!isOver) poll(url, seconds, show);
  }, seconds * 1000);
}

const arrived = byId("arrived");
if (arrived) {
  poll(arrived.dataset.url, 10, async (answer) => {
    const { count } = await answer.json();
    if (arrived.dataset.count === String(count)) return;
    arrived.dataset.count = count;
    if (!count) return arrived.replaceChildren();
    const link = document.createElement("a");
    link.href = arrived.dataset.show;
    link.textContent = `${count} new ${count === 1 ? "request" : "requests"} — show`;
    arrived.replaceChildren(link);
  });
}

// What was not decided is added below, so that nobody who reads there loses their place.
const progress = byId("progress");
if (progress?.dataset.url) {
  byId("again").remove();
  poll(progress.dataset.url, 1, async (answer) => {
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const isOver = !fresh.getElementById("progress").dataset.url;
    const refusals = byId("refusals");
    refusals.append(...[...fresh.getElementById("refusals").children].slice(refusals.children.length));
    for (const id of ["progress", "outcome", "rest"]) byId(id).replaceChildren(...fresh.getElementById(id).childNodes);
    writeTimes();
    return isOver;
  });
}
