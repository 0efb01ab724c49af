// The page asks the same API that is open to anyone; GET /api/events pushes what changes all the time.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const hour = 3600e3, day = 24 * hour;
const stamp = (ms) => new Date(ms).toISOString().slice(0, 16) + "Z"; // as the data write times
const rows = 14; // of the leaderboard

const state = { airport: null, clock: 0, day: 0, follow: true, rates: [] };

async function ask(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

// ---- the flow

const events = new EventSource("api/events");
events.onopen = () => link("live", true);
events.onerror = () => link("the program has stopped; waiting for it", false);
events.addEventListener("flow", (e) => showFlow(JSON.parse(e.data)));
events.addEventListener("leaderboard", (e) => showBoard(JSON.parse(e.data)));

function link(text, up) {
  $("link").textContent = text;
  $("link").classList.toggle("up", up);
}

function showFlow(f) {
  $("rate").textContent = number.format(Math.round(f.rate));
  $("lag").textContent = number.format(f.lag);
  $("processed").textContent = number.format(f.processed);
  $("of").textContent = f.rows ? " of " + number.format(f.rows) : "";
  $("progress").max = f.rows || 1;
  $("progress").value = f.processed;
  $("source").textContent = f.source;
  state.rates = [...state.rates, f.rate].slice(-120);
  pulse(state.rates);
  if (!f.clock) return;
  state.clock = Date.parse(f.clock);
  $("clock").textContent = new Date(state.clock).toLocaleString("en-GB",
    { timeZone: "UTC", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

function pulse(rates) {
  const top = Math.max(...rates, 1);
  const points = rates.map((r, i) => `${(i * 120) / Math.max(1, rates.length - 1)},${28 - (r / top) * 26}`);
  $("pulse").firstElementChild.setAttribute("d", `M0,28 L${points.join(" L")} L120,28 Z`);
}

// ---- the leaderboard: each airport keeps its element, which glides to its place

const items = new Map();

function showBoard(board) {
  const shown = board.airports.slice(0, rows);
  $("board").style.height = shown.length * 34 + "px";
  const gone = new Set(items.keys());
  shown.forEach((a, i) => {
    gone.delete(a.iata);
    const li = items.get(a.iata) || boardItem(a.iata);
    li.style.transform = `translateY(${i * 34}px)`;
    li.querySelector(".rank").textContent = i + 1;
    li.querySelector(".city").textContent = a.city || a.name;
    li.querySelector(".bar i").style.width = 100 * a.share + "%";
    li.querySelector(".share").textContent = (100 * a.share).toFixed(1) + " %";
    li.title = `${a.name}: ${number.format(a.delayed)} of ${number.format(a.flights)} flights delayed`;
  });
  for (const code of gone) {
    items.get(code).remove();
    items.delete(code);
  }
  if (!state.airport && shown.length) choose(busiest(board.airports));
}

const busiest = (airports) => airports.reduce((a, b) => (b.flights > a.flights ? b : a)).iata;

function boardItem(code) {
  const li = document.createElement("li");
  li.innerHTML = `<button><span class="rank"></span><span class="code"></span><span class="city"></span>` +
    `<span class="bar"><i></i></span><span class="share"></span></button>`;
  li.querySelector(".code").textContent = code;
  li.firstElementChild.onclick = () => choose(code);
  li.firstElementChild.setAttribute("aria-pressed", code === state.airport);
  $("board").append(li);
  items.set(code, li);
  return li;
}

function choose(code) {
  state.airport = code;
  for (const [c, li] of items) li.firstElementChild.setAttribute("aria-pressed", c === code);
  drawDay();
}

// ---- an airport's day

$("before").onclick = () => turn(-day);
$("after").onclick = () => turn(day);
$("live").onclick = () => { state.follow = true; drawDay(); };

function turn(by) {
  state.follow = false;
  state.day += by;
  drawDay();
}

async function drawDay() {
  $("live").setAttribute("aria-pressed", state.follow);
  if (!state.airport || !state.clock) return;
  if (state.follow) state.day = state.clock - (state.clock % day);
  const [code, from] = [state.airport, state.day];
  $("date").textContent = new Date(from).toLocaleDateString("en-GB",
    { timeZone: "UTC", weekday: "long", day: "numeric", month: "long", year: "numeric" });
  let hours = [], title = code;
  try {
    const a = await ask(`api/airports/${code}?from=${stamp(from)}&to=${stamp(from + day)}`);
    hours = a.hours;
    title = [a.iata, a.name, a.city].filter(Boolean).join(" · ");
  } catch (e) {
    title = `${code}: ${e.message}`;
  }
  if (code !== state.airport || from !== state.day) return; // another was chosen meanwhile
  $("airport").textContent = title;
  plot(hours, from);
}

function plot(hours, from) {
  const [left, right, top, bottom] = [34, 634, 10, 272];
  const most = Math.max(8, ...hours.map((h) => h.flights));
  const step = niceStep(most / 4);
  const scale = Math.ceil(most / step) * step;
  const y = (n) => bottom - ((bottom - top) * n) / scale;
  const width = (right - left) / 24;
  const parts = [];
  for (let n = 0; n <= scale; n += step) {
    parts.push(`<line x1="${left}" x2="${right}" y1="${y(n)}" y2="${y(n)}"/><text x="${left - 8}" y="${y(n) + 4}" text-anchor="end">${n}</text>`);
  }
  for (let h = 0; h < 24; h += 3) {
    parts.push(`<text x="${left + (h + 0.5) * width}" y="${bottom + 18}" text-anchor="middle">${String(h).padStart(2, "0")}:00</text>`);
  }
  for (const h of hours) {
    const x = left + Math.round((Date.parse(h.start) - from) / hour) * width + 3;
    const bar = (kind, low, high) =>
      `<rect class="${kind}" x="${x}" width="${width - 6}" y="${y(high)}" height="${Math.max(0, y(low) - y(high))}" rx="2"/>`;
    const mean = (h.delay_min / h.flights).toFixed(1);
    parts.push(`<g class="${h.final ? "" : "unfinished"}"><title>${h.start}: ${h.flights} flights, ${h.delayed} delayed, ` +
      `mean delay ${mean} min${h.final ? "" : ", still open"}</title>` +
      bar("bad", 0, h.delayed) + bar("good", h.delayed, h.flights) + `</g>`);
  }
  $("plot").innerHTML = parts.join("");
}

function niceStep(x) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(1, x)));
  return [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= x);
}

setInterval(() => { if (state.follow) drawDay(); }, 1000);

// ---- one flight

$("ask").onsubmit = async (e) => {
  e.preventDefault();
  const question = new URLSearchParams(new FormData(e.target));
  $("answer").replaceChildren();
  try {
    const a = await ask("api/flight?" + question);
    for (const f of a.flights) {
      const late = f.delay_min >= 15;
      line(late ? "late" : "early", late ? "Delayed. " : "On time. ", arrival(f.delay_min));
    }
    line("soft", "", `${a.origin} to ${a.destination} so far: ${number.format(a.route.flights)} flights, ` +
      `${Math.round((100 * a.route.delayed) / a.route.flights)} % delayed, ${(a.route.delay_min / a.route.flights).toFixed(1)} minutes on average.`);
  } catch (e) {
    line("soft", "", e.message);
  }
};

const arrival = (n) => n === 0 ? "It arrived on the minute." : `It arrived ${Math.abs(n)} minutes ${n > 0 ? "late" : "early"}.`;

function line(kind, strong, text) {
  const p = document.createElement("p");
  const b = document.createElement("b");
  b.className = kind;
  b.textContent = strong;
  p.append(b, text);
  if (kind === "soft") p.className = kind;
  $("answer").append(p);
}
