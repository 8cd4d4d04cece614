"use strict";
(() => {
  const data = JSON.parse(document.getElementById("details").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  // Texts of models enter the page as text nodes only.
  const element = (tag, more = {}, ...inside) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(more)) node.setAttribute(name, value);
    node.append(...inside);
    return node;
  };
  const shape = (tag, more) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(more)) node.setAttribute(name, value);
    return node;
  };
  const number = (value, digits = 3) =>
    value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits))).replace("-", "−");
  const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
  // One element inside, because narrow pages put the name of the column beside it.
  const cell = (name, more, ...inside) => element("td", { "data-name": name, ...more }, element("div", {}, ...inside));
  const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${number(ms / 1000)} s`);
  const whole = (text) => (Array.isArray(text) ? text[0] + text[2] : text);
  const ordered = (rows, order, value) => {
    if (!order) return rows;
    const sign = order.startsWith("-") ? -1 : 1;
    const name = order.replace("-", "");
    return [...rows].sort((a, b) => sign * ((value(a, name) ?? 0) - (value(b, name) ?? 0)));
  };

  const completions = () => {
    const form = byId("samples-filter");
    if (!form) return;
    const size = 20;
    let page = 0;
    const field = (name) => form.elements[name];
    const offer = (name, values, shown = (value) => value) => {
      for (const value of new Set(values)) field(name).append(element("option", { value }, String(shown(value))));
    };
    const rows = data.completions;
    offer("update", rows.map((row) => row.update).sort((a, b) => a - b));
    offer("kind", Object.keys(data.kinds), (kind) => data.kinds[kind]);
    offer("finish", rows.map((row) => row.finish).filter((finish) => finish !== null));
    const texts = new Map(
      rows.map((row) => [row, `${row.id} ${whole(row.question)} ${whole(row.text)} ${row.read ?? ""}`.toLowerCase()]),
    );
    const kept = (row) => {
      const is = (name, value) => !field(name) || field(name).value === "" || field(name).value === String(value);
      const verdict = row.kind === "correct" ? "right" : "wrong";
      const fits = is("run", row.run) && is("update", row.update) && is("kind", row.kind) && is("finish", row.finish);
      return fits && is("verdict", verdict) && texts.get(row).includes(field("text").value.trim().toLowerCase());
    };
    const long = (text) => {
      if (!Array.isArray(text)) return [text];
      const [head, count, tail] = text;
      return [head, element("span", { class: "left-out" }, ` [${count} characters left out] `), tail];
    };
    const line = (row) => {
      const right = row.kind === "correct";
      const verdict = element("span", { class: `verdict ${right ? "right" : "wrong"}` }, right ? "right" : "wrong");
      const parts = Object.entries(row.parts).filter(([, value]) => value !== null);
      const rewards = [["total", row.reward], ...parts].map(([name, value]) => element("li", {}, `${name} ${number(value)}`));
      const read = row.read === null ? "nothing read" : `read ${row.read}`;
      const kind = right ? "" : ` (${data.kinds[row.kind] ?? row.kind})`;
      return element(
        "tr",
        {},
        element("th", { scope: "row", class: "number" }, `update ${row.update}`),
        cell("Verdict", {}, verdict, kind, element("br"), `${read}, gold ${row.gold}`),
        cell("Question", { class: "wide" }, element("p", {}, ...long(row.question)), element("span", { class: "id" }, String(row.id))),
        cell("Completion", { class: "wide" }, element("pre", {}, ...long(row.text))),
        cell("Reward", {}, element("ul", {}, ...rewards)),
        cell("Advantage", { class: "number" }, row.advantage === null ? "–" : signed(row.advantage)),
        cell("Version", { class: "number" }, row.versions.join(" to ")),
        cell("Tokens", { class: "number" }, number(row.length, 9)),
        cell("Ended by", { class: "number" }, String(row.finish ?? "–")),
      );
    };
    const heads = ["Update", "Verdict", "Question", "Completion", "Reward", "Advantage", "Version", "Tokens", "Ended by"];
    const draw = () => {
      const found = ordered(rows.filter(kept), field("order").value, (row, name) => row[name]);
      const pages = Math.max(1, Math.ceil(found.length / size));
      page = Math.min(page, pages - 1);
      const head = element("thead", {}, element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name))));
      const body = element("tbody", {}, ...found.slice(page * size, (page + 1) * size).map(line));
      byId("samples").replaceChildren(head, body);
      byId("samples-count").textContent = `${found.length} of ${rows.length} match`;
      byId("samples-page").textContent = `page ${page + 1} of ${pages}`;
      byId("samples-back").disabled = page === 0;
      byId("samples-next").disabled = page === pages - 1;
    };
    const turn = (by) => () => {
      page += by;
      draw();
      byId("completions").scrollIntoView();
    };
    byId("samples-back").addEventListener("click", turn(-1));
    byId("samples-next").addEventListener("click", turn(1));
    form.addEventListener("input", () => {
      page = 0;
      draw();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    draw();
  };

  const shade = (share) => {
    const mix = (a, b) => Math.round(a + (b - a) * share);
    return `rgb(${mix(17, 0)},${mix(17, 158)},${mix(17, 115)})`;
  };

  const history = (found, index) => {
    const place = byId(`history-${index}`);
    const outcomes = found.outcomes.filter(([, count]) => count > 0);
    const labels = outcomes.map(([name, count]) => element("span", { title: `${name}: ${count}` }, `${name}: ${count}`));
    const columns = outcomes.map(([, count]) => `minmax(0, ${count}fr)`).join(" ");
    place.append(element("div", { class: "outcomes", style: `grid-template-columns:${columns}` }, ...labels));
    // The counts are in the text above, too: a label that does not fit is left out.
    new ResizeObserver(() => {
      labels.forEach((label, at) => {
        const [name, count] = outcomes[at];
        label.textContent = `${name}: ${count}`;
        if (label.scrollWidth > label.clientWidth) label.textContent = "\u00a0";
      });
    }).observe(place);
    found.versions.forEach((version, at) => {
      const canvas = element("canvas", { width: found.items.length, height: 1, style: "height:18px" });
      const context = canvas.getContext("2d");
      found.items.forEach(([, verdicts], x) => {
        if (verdicts[at] === "-") return;
        context.fillStyle = shade(Number(verdicts[at]));
        context.fillRect(x, 0, 1, 1);
      });
      canvas.addEventListener("pointermove", (event) => {
        const x = Math.floor((event.offsetX / canvas.clientWidth) * found.items.length);
        const [id, verdicts] = found.items[Math.max(0, Math.min(x, found.items.length - 1))];
        const told = { 1: "right", 0: "wrong", "-": "not asked" };
        byId(`history-${index}-at`).textContent = `${id}, version ${version}: ${told[verdicts[at]]}`;
      });
      place.append(element("div", { class: "row" }, `version ${version}`, canvas));
    });
  };

  const rates = (found, index) => {
    const canvas = element("canvas", { width: Math.max(1, found.updates.length), height: 100, style: "height:110px" });
    const context = canvas.getContext("2d");
    found.updates.forEach(([, never, partly, always], x) => {
      const all = never + partly + always;
      let y = 0;
      for (const [count, color] of [[never, "#111111"], [partly, "#e69f00"], [always, "#009e73"]]) {
        context.fillStyle = color;
        context.fillRect(x, y, 1, (100 * count) / all);
        y += (100 * count) / all;
      }
    });
    const [first, last] = [found.updates[0], found.updates[found.updates.length - 1]].map(([update]) => `update ${update}`);
    const ends = element("div", { class: "ends" }, element("span", {}, first), element("span", {}, last));
    byId(`solved-${index}`).append(element("div", { class: "row" }, "questions", canvas), ends);
    const form = document.querySelector(`.rates-filter[data-rates="${index}"]`);
    const share = ([, count, right]) => right / count;
    const value = ([, , , visits], name) => {
      if (name === "change") return share(visits[visits.length - 1]) - share(visits[0]);
      const sum = (at) => visits.reduce((total, visit) => total + visit[at], 0);
      return sum(2) / sum(1);
    };
    const line = (row) => {
      const [id, question, cut, visits] = row;
      const marks = visits.map((visit) =>
        element("i", { style: `background:${shade(share(visit))}`, title: `update ${visit[0]}: ${visit[2]} of ${visit[1]} right` }),
      );
      const [first, last] = [visits[0], visits[visits.length - 1]];
      const told = (visit) => `${visit[2]} of ${visit[1]} at update ${visit[0]}`;
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, id),
        cell("Text", {}, question + (cut ? "…" : "")),
        cell("Solve rate", {}, `${Math.round(100 * value(row, "rate"))} %`),
        cell("Visits", {}, element("div", { class: "visits" }, ...marks)),
        cell("Right", {}, first === last ? told(first) : `${told(first)}; ${told(last)}`),
      );
    };
    const draw = () => {
      const wanted = form.elements.text.value.trim().toLowerCase();
      const kept = found.questions.filter(([id, question]) => `${id} ${question}`.toLowerCase().includes(wanted));
      const rows = ordered(kept, form.elements.order.value, value);
      const names = ["Question", "Text", "Solve rate", "Visits", "Right"];
      const head = element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));
      byId(`rates-${index}`).replaceChildren(head, element("tbody", {}, ...rows.map(line)));
      form.querySelector("output").textContent = `${rows.length} of ${found.questions.length} match`;
    };
    form.addEventListener("input", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    draw();
  };

  const COLORS = {
    generate: "#0072b2", load: "#a84300", update: "#007a59", prepare: "#2b7a8c", publish: "#7a5cc0", records: "#8a6d00",
    checkpoint: "#b0487f", validation: "#5b6b7a", start: "#6b4f3a",
  };
  const [WAITS, OTHER] = ["#9aa4ad", "#777777"];
  const ROW = 30;

  const timeline = (found, index) => {
    const place = byId(`timeline-${index}`);
    const form = document.querySelector(`.timeline-form[data-timeline="${index}"]`);
    const waits = (name) => name.startsWith("wait");
    const color = (name) => (waits(name) ? WAITS : Object.hasOwn(COLORS, name) ? COLORS[name] : OTHER);
    const names = element("div", { class: "names" }, ...found.rows.map((row) => element("div", { title: row }, row)));
    const view = element("div", { class: "window", tabindex: "0", role: "region", "aria-label": "Timeline, scrolls to the side" });
    place.replaceChildren(names, view);
    let zoom = 1;

    const told = ([row, name, start, length, version]) => {
      const of = version < 0 ? "" : ["update", "prepare", "wait for rollouts", "grading"].includes(found.names[name]) ? `, update ${version + 1}` : `, version ${version}`;
      const time = length > 0 ? `, ${seconds(length)}` : "";
      return `${found.rows[row]}: ${found.names[name]}${of}${time}, at ${number(start / 1000, 5)} s`;
    };
    const ticks = (svg, from, to, width, height) => {
      const rough = ((to - from) * 80) / width;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
      for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
        const x = ((time - from) / (to - from)) * width;
        svg.append(shape("line", { x1: x, x2: x, y1: 0, y2: height, class: "grid-line" }));
        const text = shape("text", { x: Math.min(x + 3, width - 40), y: height + 14, class: "tick" });
        text.textContent = `${number(time / 1000, 5)} s`;
        svg.append(text);
      }
    };
    const mark = (svg, bar, from, scale) => {
      const [row, name, start, length] = bar;
      const x = (start - from) * scale;
      const width = Math.max(length * scale, length > 0 ? 1 : 3);
      const rect = shape("rect", { x, y: row * ROW + 2, width, height: ROW - 8, fill: color(found.names[name]), tabindex: "-1" });
      const title = shape("title", {});
      title.textContent = told(bar);
      rect.append(title);
      const say = () => (byId(`timeline-${index}-at`).textContent = told(bar));
      for (const event of ["pointerenter", "focus", "click"]) rect.addEventListener(event, say);
      svg.append(rect);
      const seen = Math.min(x + width, Number(svg.getAttribute("width"))) - Math.max(x, 0);
      if (seen < 7 * found.names[name].length + 6) return;
      const label = shape("text", { x: Math.max(x, 0) + 4, y: row * ROW + 17, class: "label" });
      label.textContent = found.names[name];
      svg.append(label);
    };
    const legend = (bars) => {
      const shown = found.names.filter((name, at) => bars.some((bar) => bar[1] === at));
      const entry = (name) => element("li", {}, element("span", { class: "swatch", style: `background:${color(name)}` }), name);
      form.parentElement.querySelector(".timeline-legend").replaceChildren(...shown.map(entry));
    };
    const draw = () => {
      const [, from, to] = found.stretches[Number(form.elements.stretch.value)];
      const width = Math.max(200, view.clientWidth) * zoom;
      const height = found.rows.length * ROW;
      const svg = shape("svg", { width, height: height + 20, role: "img", "aria-label": "Timeline" });
      for (let row = 1; row <= found.rows.length; row += 1) {
        svg.append(shape("line", { x1: 0, x2: width, y1: row * ROW - 3, y2: row * ROW - 3, class: "lane" }));
      }
      const bars = found.bars.filter(([, , start, length]) => start <= to && start + length >= from);
      ticks(svg, from, Math.max(to, from + 1), width, height);
      for (const bar of bars) mark(svg, bar, from, width / Math.max(to - from, 1));
      legend(bars);
      view.replaceChildren(svg);
    };
    // The middle of what is seen stays in the middle.
    const zoomTo = (wanted) => {
      const middle = (view.scrollLeft + view.clientWidth / 2) / (view.clientWidth * zoom);
      zoom = Math.max(1, Math.min(wanted, 64));
      draw();
      view.scrollLeft = middle * view.clientWidth * zoom - view.clientWidth / 2;
    };
    form.elements.in.addEventListener("click", () => zoomTo(zoom * 2));
    form.elements.out.addEventListener("click", () => zoomTo(zoom / 2));
    form.elements.fit.addEventListener("click", () => zoomTo(1));
    form.elements.stretch.addEventListener("input", () => {
      zoom = 1;
      draw();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoomTo(event.deltaY < 0 ? zoom * 1.5 : zoom / 1.5);
    }, { passive: false });
    new ResizeObserver(() => requestAnimationFrame(() => draw())).observe(place);
    draw();
  };

  completions();
  data.histories.forEach(history);
  data.rates.forEach(rates);
  data.timelines.forEach(timeline);
})();
