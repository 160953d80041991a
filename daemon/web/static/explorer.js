// One metric with the band of what was usual, drawn by uPlot.
"use strict";

const place = document.getElementById("explorer");
const said = document.getElementById("explorer-said");
let plot = null;

// The names of light-dark() colours are resolved by the browser only in use.
function used(name) {
  const probe = document.createElement("span");
  probe.className = `probe-${name}`;
  place.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function draw(found) {
  if (plot) plot.destroy();
  const lang = document.body.dataset.lang;
  const [ink, line, band] = [used("ink"), used("curve"), used("window")];
  const write = (value) => (value === null ? "" : written(value, found.unit, lang));
  const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const axis = { stroke: ink, grid: { stroke: used("line"), width: 1 }, ticks: { stroke: used("line") } };
  const bound = (arrow) => ({
    label: `${place.dataset.usual} ${arrow}`, stroke: band, width: 1, points: { show: false }, value: (_, v) => write(v),
  });
  plot = new uPlot(
    {
      width: place.clientWidth, height: Math.min(420, Math.max(240, place.clientWidth * 0.45)),
      series: [
        { label: place.dataset.time, value: (_, t) => (t === null ? "" : new Date(t * 1000).toLocaleString(lang)) },
        bound("↓"),
        bound("↑"),
        { label: place.dataset.value, stroke: line, width: 1.5, value: (_, v) => write(v) }, // over the band
      ],
      bands: [{ series: [2, 1], fill: band }],
      axes: [
        { ...axis, values: (_, all) => all.map((t) => clock.format(new Date(t * 1000))) },
        { ...axis, size: 80, values: (_, all) => all.map(write) },
      ],
    },
    [found.times, found.low, found.high, found.values],
    place,
  );
}

async function load() {
  const query = new URLSearchParams({ name: place.dataset.series, span: place.dataset.span });
  const answer = await fetch(`/series?${query}`);
  if (!answer.ok) { said.textContent = await answer.text(); return; }
  const found = await answer.json();
  if (found.values.length < 2) { said.textContent = place.dataset.none; return; }
  said.textContent = "";
  draw(found);
  document.addEventListener("theme", () => draw(found));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(found));
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => draw(found), 150); });
}

if (place) load();
