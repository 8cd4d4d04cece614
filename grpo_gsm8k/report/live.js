"use strict";
(() => {
  const box = document.getElementById("live");
  const auto = document.getElementById("live-auto");
  const told = document.getElementById("live-told");
  const KEY = `live ${window.location.pathname}`;
  const fields = () => [...document.querySelectorAll("form input, form select")].map((field) => [field.form.id || Object.values(field.form.dataset).join(), field]);

  // What can be opened, by section, title and number among those of the same title.
  const foldable = () => {
    const found = new Map();
    for (const node of document.querySelectorAll("details")) {
      const title = `${node.closest("section")?.id} ${node.querySelector("summary")?.textContent.trim()}`;
      let nth = 0;
      while (found.has(`${title} ${nth}`)) nth += 1;
      found.set(`${title} ${nth}`, node);
    }
    return found;
  };

  // A reload keeps filters, opened items and the place in the page.
  const keep = () => {
    const values = fields().map(([form, field]) => [form, field.name || field.id, field.value]);
    const open = [...foldable()].filter(([, node]) => node.open).map(([title]) => title);
    sessionStorage.setItem(KEY, JSON.stringify({ values, open, y: window.scrollY, auto: auto.checked }));
  };
  const restore = () => {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    if (!kept) return;
    auto.checked = kept.auto;
    for (const [form, field] of fields()) {
      const found = kept.values.find(([owner, name]) => owner === form && name === (field.name || field.id));
      if (!found || field.value === found[2]) continue;
      const before = field.value;
      field.value = found[2];
      if (field.value !== found[2]) field.value = before;
      else field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const nodes = foldable();
    for (const title of kept.open) if (nodes.has(title)) nodes.get(title).open = true;
    window.scrollTo(0, kept.y);
  };

  const ask = async () => {
    try {
      const answer = await fetch("/live", { cache: "no-store" });
      const { build } = await answer.json();
      box.classList.remove("stale");
      if (build === box.dataset.build) told.textContent = `as of ${box.dataset.made}`;
      else if (auto.checked && !document.hidden) {
        keep();
        window.location.reload();
        return;
      } else told.textContent = "there is a newer state";
    } catch {
      box.classList.add("stale");
      told.textContent = `the server has ended; as of ${box.dataset.made}`;
    }
    setTimeout(ask, 2000);
  };
  auto.addEventListener("input", keep);
  history.scrollRestoration = "manual";
  restore();
  ask();
})();
