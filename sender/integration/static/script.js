"use strict";
// The pages are complete without this: it adds the reader's own time, fresh counts, and word of new failures.

const byId = (id) => document.getElementById(id);

for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = time.textContent;
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

// A second click while the outbox is slow sends nothing, and the answer to the first is the one that is seen.
const underWay = new Set();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (underWay.has(form)) return event.preventDefault();
  underWay.add(form);
  setTimeout(() => underWay.delete(form), 10_000);
});
addEventListener("pageshow", () => underWay.clear());

// Asks while the page is seen, of the open status: counts only, and no sign that somebody is there.
const news = byId("news");
if (news) {
  let known;
  const look = async () => {
    try {
      if (document.hidden) return;
      const answer = await fetch(news.dataset.url, { credentials: "omit" });
      if (answer.ok) show(await answer.json());
    } catch {
      // The server is away for a moment: it is asked again.
    } finally {
      setTimeout(look, 5000);
    }
  };
  const show = (status) => {
    news.dataset.asked = "";
    known ??= status;
    for (const place of document.querySelectorAll("[data-count]")) place.textContent = status[place.dataset.count];
    const { reachable, answer } = status.crm;
    const crm = byId("crm");
    if (crm) {
      crm.className = reachable ? "good" : "bad";
      crm.textContent = `${reachable ? "reachable" : "not reachable"}: ${answer}`;
    }
    const more = status.failed - known.failed;
    const words = [
      known.crm.reachable && !reachable && `The CRM is not reachable: ${answer}.`,
      more > 0 && `${more} more ${more === 1 ? "delivery has" : "deliveries have"} failed.`,
    ].filter(Boolean);
    const text = words.join(" ");
    if (text === (news.dataset.text ?? "")) return;
    news.dataset.text = text;
    const link = document.createElement("a");
    link.href = more > 0 ? news.dataset.failed : news.dataset.home;
    link.textContent = "Show";
    news.replaceChildren(...(text ? [`${text} `, link] : []));
  };
  look();
}
