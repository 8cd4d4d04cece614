"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]],
    toImageButtonOptions: { format: "svg" },
  };

  const axis = (own, line, small) => ({
    gridcolor: line,
    linecolor: line,
    zerolinecolor: line,
    automargin: true,
    tickfont: { size: small ? 10 : 12 },
    ...own,
    title: { ...own?.title, font: { size: small ? 11 : 12 }, standoff: 6 },
  });

  // The palette's blue is too dark on a dark background.
  const lightened = (text) => (dark.matches ? text.replaceAll("#0072B2", "#3D9BD9") : text);

  const themed = (layout, height, overlaid) => {
    const css = getComputedStyle(document.documentElement);
    const [ink, line, soft, strong] = ["--ink", "--line", "--soft", "--accent"].map((name) => css.getPropertyValue(name).trim());
    const small = height < 260;
    return {
      ...layout,
      font: { family: "system-ui, sans-serif", size: 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: overlaid ? line : "rgba(0,0,0,0)",
      margin: layout.margin ?? { l: 48, r: 20, t: 26, b: 44 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: strong },
      showlegend: false,
      hovermode: "closest",
      height,
      xaxis: axis(layout.xaxis, line, small),
      yaxis: axis(layout.yaxis, line, small),
    };
  };

  // With a view box a figure shrinks with its place before it is drawn again, and nothing is cut off on paper.
  const fit = (place) => {
    const { width, height } = place._fullLayout;
    for (const svg of place.querySelectorAll(".main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  };

  const draw = () => {
    for (const [id, figure] of Object.entries(figures)) {
      const place = document.getElementById(id);
      const modebar = { ...config, displayModeBar: place.clientHeight < 260 ? false : "hover" };
      modebar.toImageButtonOptions = { ...config.toImageButtonOptions, filename: id };
      const data = JSON.parse(lightened(JSON.stringify(figure.data)));
      const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
      for (const trace of data) if (trace.error_x) trace.error_x.color = ink;
      const layout = themed(figure.layout, parseInt(place.style.height, 10), data[0].type === "heatmap");
      Plotly.react(place, data, layout, modebar);
      fit(place);
    }
    for (const chip of document.querySelectorAll(".chip")) chip.style.background = lightened(chip.dataset.color);
  };
  draw();
  dark.addEventListener("change", draw);
  // plotly itself notices a new window size alone, not one of the figure's place.
  const resize = (target) => {
    if (target.clientWidth && target.clientWidth !== target._fullLayout?.width) Plotly.Plots.resize(target).then(() => fit(target));
  };
  // In the next frame: a size that changes within the observer's own call is reported as an error.
  const resized = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach(({ target }) => resize(target))));
  for (const id of Object.keys(figures)) resized.observe(document.getElementById(id));

  const form = document.getElementById("filter");
  if (!form) return;
  const field = (name) => document.getElementById(`filter-${name}`);
  const names = ["text", "pair", "change", "kind"].filter((name) => field(name));
  const items = [...document.querySelectorAll(".item")].map((node) => ({ node, text: node.textContent.toLowerCase() }));
  const pairs = [...document.querySelectorAll(".pair")];
  const chosen = (name) => field(name)?.value ?? "";

  const filter = () => {
    const wanted = chosen("text").trim().toLowerCase();
    let shown = 0;
    for (const { node, text } of items) {
      const kept = ["pair", "change", "kind"].every((name) => !chosen(name) || node.dataset[name] === chosen(name));
      node.hidden = !(kept && text.includes(wanted));
      shown += !node.hidden;
    }
    for (const pair of pairs) pair.hidden = chosen("pair") !== "" && pair.dataset.pair !== chosen("pair");
    field("count").textContent = `${shown} of ${items.length} shown`;
  };

  // Links can set the filter: #items?text=apples&change=broken
  const [place, query] = window.location.hash.split("?");
  if (place === "#items" && query !== undefined) {
    const given = new URLSearchParams(query);
    for (const name of names) field(name).value = given.get(name) ?? "";
    document.getElementById("items").scrollIntoView();
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
