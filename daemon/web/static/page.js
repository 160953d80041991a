// Keeps the first page fresh, draws its small curves, and answers to keys. Everything works without it.
"use strict";

const REFRESH_MS = 5000;

function typing(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

// --- keys ------------------------------------------------------------------------------------------------

function move(by) {
  const rows = [...document.querySelectorAll(".row > a.open")];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))].focus();
}

function press(key) {
  if (key === "j" || key === "k") return move(key === "j" ? 1 : -1);
  if (key === "?") return document.getElementById("keys").showModal();
  if (key === "/") {
    const field = document.getElementById("search");
    if (field) field.focus(); else location.assign("/incidents");
    return;
  }
  const target = document.querySelector(`main [data-key="${CSS.escape(key)}"], nav [data-key="${CSS.escape(key)}"]`);
  if (!target) return;
  target.click();
  if (target.tagName === "SUMMARY") target.parentElement.querySelector("textarea").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (document.querySelector("dialog[open]") || event.key.length !== 1) return;
  if (event.key === "/" || event.key === "?") event.preventDefault();
  press(event.key);
});

// --- theme and help ----------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function currentTheme() {
  return document.documentElement.dataset.theme || "auto";
}

function showTheme() {
  themeButton.textContent = themeButton.dataset[currentTheme()];
}

themeButton.hidden = false;
showTheme();
themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem("theme", next); } catch (error) { /* for this page only */ }
  showTheme();
  document.dispatchEvent(new Event("theme"));
});

const helpButton = document.getElementById("help");
helpButton.hidden = false;
helpButton.addEventListener("click", () => document.getElementById("keys").showModal());

// --- what stays fresh ----------------------------------------------------------------------------------------

const live = document.getElementById("live");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(live.dataset.from);
    if (!answer.ok) return;
    const text = await answer.text();
    if (text === live.last) return;
    live.last = text;
    const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const open = live.querySelector("details")?.open;
    live.innerHTML = text; // the server escapes all that is not its own
    if (open) live.querySelector("details").open = true;
    if (focused) live.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  } catch (error) { /* the next try may find it again */ }
}

if (live) setInterval(refresh, REFRESH_MS);

// --- small curves ----------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function written(value, unit, lang) {
  const number = (digits) => new Intl.NumberFormat(lang, { maximumFractionDigits: digits });
  if (unit === "ratio") return `${number(1).format(value * 100)} %`;
  if (unit.startsWith("bytes")) {
    const power = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, Math.abs(value))) / 10)));
    return `${number(1).format(value / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}${unit.slice(5)}`;
  }
  return number(2).format(value) + (unit === "1/s" ? "/s" : unit === "s" ? " s" : unit === "celsius" ? " °C" : "");
}

async function spark(place) {
  const query = new URLSearchParams({ name: place.dataset.series, span: place.dataset.span });
  const last = place.parentElement.querySelector(".last");
  try {
    const answer = await fetch(`/series?${query}`);
    const found = answer.ok ? await answer.json() : { values: [] };
    if (found.values.length < 2) { last.textContent = "–"; return; }
    const low = found.unit === "ratio" ? 0 : Math.min(...found.values);
    const high = found.unit === "ratio" ? 1 : Math.max(...found.values);
    const [start, end] = [found.times[0], found.times.at(-1)];
    const points = found.values.map((value, n) =>
      `${((found.times[n] - start) / (end - start || 1) * 100).toFixed(1)},${(29 - (value - low) / (high - low || 1) * 28).toFixed(1)}`);
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", "0 0 100 30");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.join(" "));
    line.setAttribute("class", "curve");
    drawing.append(line);
    place.replaceChildren(drawing);
    last.textContent = written(found.values.at(-1), found.unit, document.body.dataset.lang);
  } catch (error) { last.textContent = "–"; }
}

async function sparks() {
  for (const place of document.querySelectorAll(".spark")) await spark(place);
}

sparks();
