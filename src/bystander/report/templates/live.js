// The live page: asks for the run's state every two seconds and draws it. Text is set as text, never as markup.
"use strict";
const AGAIN = 2000;
const [WIDE, HIGH, LEFT, LOW] = [320, 200, 60, 24];
const at = (id) => document.getElementById(id);
const make = (tag, text = "", name = "") => {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
};
const drawn = (tag, attributes, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};
const short = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
const time = (seconds) => {
  if (seconds === null) return "not known";
  const minutes = Math.round(seconds / 60);
  return minutes < 1 ? "under a minute" : minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
};

// A frame with its ends labelled, and where a value of data stands in it.
function frame(points) {
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const span = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  };
  const [[x0, x1], [y0, y1]] = [span(xs), span(ys)];
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDE - LEFT - 8);
  const y = (value) => HIGH - LOW - ((value - y0) / (y1 - y0)) * (HIGH - LOW - 10);
  const svg = drawn("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  svg.append(
    drawn("line", { x1: LEFT, y1: HIGH - LOW, x2: WIDE - 8, y2: HIGH - LOW }),
    drawn("line", { x1: LEFT, y1: 10, x2: LEFT, y2: HIGH - LOW }),
    drawn("text", { x: LEFT - 4, y: HIGH - LOW, "text-anchor": "end" }, short(y0)),
    drawn("text", { x: LEFT - 4, y: 14, "text-anchor": "end" }, short(y1)),
    drawn("text", { x: LEFT, y: HIGH - 8 }, short(x0)),
    drawn("text", { x: WIDE - 8, y: HIGH - 8, "text-anchor": "end" }, short(x1)),
  );
  return { svg, x, y };
}

function figure(svg, caption) {
  const node = make("figure");
  node.append(svg, make("figcaption", caption));
  return node;
}

function curve(one) {
  const points = one.points.filter((p) => Number.isFinite(p[1]));
  if (!points.length) return make("span");
  const { svg, x, y } = frame(points);
  const path = points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
  svg.append(drawn("path", { d: path }));
  return figure(svg, `${one.name}: loss ${short(points.at(-1)[1])} at step ${points.at(-1)[0]}`);
}

function cloud(one) {
  if (!one.points.length) return make("span");
  const { svg, x, y } = frame(one.points.map((p) => [p.similarity, p.change]));
  for (const p of one.points) {
    const dot = drawn("circle", { cx: x(p.similarity), cy: y(p.change), r: 3.5, class: p.role || "" });
    dot.append(drawn("title", {}, `${p.persona} (${p.role}): similarity ${short(p.similarity)}, change ${short(p.change)}`));
    svg.append(dot);
  }
  return figure(svg, `${one.name}; change in ${one.outcome} by similarity to the source`);
}

function phase(one) {
  const all = Object.values(one.counts).reduce((sum, count) => sum + count, 0);
  const node = make("div");
  const bar = make("div", "", "bar");
  for (const state of ["done", "running"]) {
    const part = make("i", "", state);
    part.style.width = `${(100 * one.counts[state]) / all}%`;
    bar.append(part);
  }
  node.append(make("div", `${one.phase} ${one.name}: ${one.counts.done} of ${all}`), bar);
  return node;
}

function row(...cells) {
  const node = make("tr");
  node.append(...cells.map((cell) => make("td", cell)));
  return node;
}

function show(run) {
  document.title = `${run.study}: ${run.state}`;
  at("study").textContent = run.study;
  at("state").textContent = `${run.state}${run.gate ? `; gate: ${run.gate}, ${run.gate_reason}` : ""}; left: ${time(run.seconds_left)}`;
  at("phases").replaceChildren(...run.phases.map(phase));
  at("spend").textContent = `${short(run.spent.hours)} of ${short(run.forecast.hours)} device hours, ${short(run.spent.dollars)} of ${short(run.forecast.dollars)} dollars (forecast)`;
  const jobs = run.jobs.map((job) => row(`job ${job.id}`, `${job.state.toLowerCase()}, ${job.where}`, job.cell));
  at("running").replaceChildren(...run.running.map((name) => row(name)), ...jobs);
  at("failures").replaceChildren(...Object.entries(run.failed).map(([name, why]) => make("p", `failed: ${name}: ${why}`, "bad")));
  at("losses").replaceChildren(...run.losses.map(curve));
  at("scatter").replaceChildren(...run.scatter.map(cloud));
  at("events").replaceChildren(...[...run.events].reverse().map((e) => row(e.time.slice(11, 19), e.words)));
}

async function look() {
  try {
    const answer = await fetch("data", { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.json()).error);
    show(await answer.json());
  } catch (error) {
    at("state").textContent = `no answer (${error.message}); trying again`;
  }
  setTimeout(look, AGAIN);
}
look();
