"use strict";
// The pages are complete without this: it adds the reader's own time, fresh counts, and word of new failures.

const byId = (id) => document.getElementById(id);

for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = time.textContent;
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

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
    for (const place of document.querySelectorAll("[data-count]")) place.textContent = status[place.dataset.count];
    news.dataset.asked = "";
    known ??= status.failed;
    const more = status.failed - known;
    if (more <= 0 || news.dataset.more === String(more)) return;
    news.dataset.more = more;
    const link = document.createElement("a");
    link.href = news.dataset.show;
    link.textContent = `${more} more ${more === 1 ? "delivery has" : "deliveries have"} failed: show`;
    news.replaceChildren(link);
  };
  look();
}
