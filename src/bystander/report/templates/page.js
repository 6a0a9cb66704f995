"use strict";
/* Everything that moves in the page. Text of a study reaches the document through textContent alone. */
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  /* ---- data: gzip in base64, unpacked when first asked for ---- */
  const unpacked = new Map();
  function data(name) {
    if (!unpacked.has(name)) {
      const block = $$("script[data-name]").find((script) => script.dataset.name === name);
      unpacked.set(name, block ? unpack(block.textContent) : Promise.resolve(null));
    }
    return unpacked.get(name);
  }
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  /* ---- numbers: the rules of labels.format_number ---- */
  const DIGITS = { fraction: 3, nats: 2, "nats/token": 3, score: 1, rho: 2, signed: 3 };
  const thousands = (value) => (Math.sign(value) * Math.round(Math.abs(value)) || 0).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f").replace("-", "−");
  const WORDS = { non_contrastive: "non-contrastive" };
  const words = (name) => WORDS[name] ?? name.replaceAll("_", " ");
  function formatNumber(value, form) {
    if (value === null || value === undefined) return "–";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (form === "name") return words(String(value));
    if (typeof value === "string" || form === "text") return String(value);
    if (form === "p") return value < 0.0001 ? "< 0.0001" : value.toFixed(value < 0.01 ? 4 : 3);
    if (form === "count") return thousands(value);
    if (form in DIGITS) {
      let text = value.toFixed(DIGITS[form]);
      if (Number(text) === 0) text = text.replace("-", "");
      else if (form === "signed" && value > 0) text = "+" + text;
      return text.replace("-", "−");
    }
    if (Number.isInteger(value) && Math.abs(value) >= 10000) return thousands(value);
    if (Number.isInteger(value)) return String(value).replace("-", "−");
    const short = Number(value.toPrecision(4));
    const text = Math.abs(short) >= 0.0001 ? String(short) : short.toExponential(3).replace(/\.?0*e/, "e");
    return text.replaceAll("-", "−");
  }

  /* ---- theme: the system's, or the reader's choice ---- */
  const system = matchMedia("(prefers-color-scheme: dark)");
  const memory = { get: () => { try { return localStorage.getItem("bystander-theme"); } catch { return null; } },
                   set: (value) => { try { localStorage.setItem("bystander-theme", value); } catch { /* file: pages may not */ } } };
  let chosen = memory.get() || "auto";
  const themeNow = () => (chosen === "auto" ? (system.matches ? "dark" : "light") : chosen);
  function applyTheme() {
    document.documentElement.dataset.theme = themeNow();
    const button = $("#theme");
    if (button) button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[chosen];
  }
  applyTheme();

  /* ---- tooltip ---- */
  const tip = $("#tip");
  function showTip(handler, event, item, value) {
    if (!value || typeof value !== "object") { tip.classList.remove("on"); return; }
    const list = make("dl");
    for (const [key, text] of Object.entries(value)) {
      if (text === "" || text === "null" || text === "undefined" || text === "NaN") continue;
      if (key === "record") { list.append(make("div", text, "record")); continue; }
      list.append(make("dt", key), make("dd", text));
    }
    tip.replaceChildren(list);
    tip.classList.add("on");
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${Math.max(8, y)}px`;
  }

  /* ---- figures ---- */
  const state = { follow: "", arm: $("#arm") ? $("#arm").value : null };
  const views = new Map(); // figure element -> { view, name, width, theme }
  const refuse = { load: () => Promise.reject(new Error("the report loads nothing")),
                   sanitize: () => Promise.reject(new Error("the report links nowhere")) };

  function fit(node, width, hints) {
    if (node.facet && node.spec) {
      const count = (node.facet.sort || []).length || 1;
      const gutter = Math.min(hints.gutter ?? 78, width * 0.5) + (hints.over ?? 0), least = hints.least ?? 150, gap = 24;
      const columns = Math.max(1, Math.min(count, hints.columns ?? 5, Math.floor((width - gutter + gap) / (least + gap))));
      const inner = Math.floor((width - gutter - (columns - 1) * gap) / columns);
      node.columns = columns;
      node.spacing = { row: 16, column: gap };
      node.spec.width = Math.min(inner, hints.widest ?? 720);
      if (hints.aspect && count > 1) node.spec.height = Math.round(Math.max(150, Math.min(inner * hints.aspect, 260)));
      return;
    }
    if (node.concat) {
      const least = hints.least ?? 200, gap = 26;
      const columns = Math.max(1, Math.min(node.concat.length, hints.columns ?? 4, Math.floor((width + gap) / (least + gap))));
      node.columns = columns;
      for (const part of node.concat) part.width = Math.floor((width - (hints.over ?? 0) - (columns - 1) * gap) / columns) - (hints.gutter ?? 60);
      return;
    }
    for (const part of node.vconcat || []) fit(part, width, hints);
    if (!node.vconcat && (node.layer || node.mark)) node.width = Math.min(width - (hints.gutter ?? 78), hints.widest ?? 860);
  }

  async function draw(figure, over = 0) {
    const slot = $(".canvas", figure);
    const name = slot.dataset.canvas;
    const known = views.get(figure);
    const hidden = !slot.clientWidth; // in a fold that is closed: drawn for the print, and again when it is opened
    const width = Math.floor(slot.clientWidth || $("main").clientWidth);
    const theme = document.documentElement.dataset.theme;
    if (!over && known && known.name === name && known.width === width && known.theme === theme && (hidden || !known.hidden)) return;
    const [source, configs] = await Promise.all([data(`figure/${name}`), data("configs")]);
    if (!source) return;
    const spec = structuredClone(source);
    fit(spec, width - 16, { ...spec.usermeta, over: over || (known && known.name === name && known.width === width ? known.over : 0) });
    spec.config = configs[theme];
    for (const parameter of spec.params || []) {
      delete parameter.bind;
      if (parameter.name === "follow") parameter.value = state.follow;
      if (parameter.name === "arm" && state.arm !== null) parameter.value = state.arm;
    }
    try {
      const result = await vegaEmbed(slot, spec, {
        ast: true, actions: false, defaultStyle: false, renderer: "canvas", tooltip: showTip, loader: refuse, logLevel: 1,
      });
      if (known) known.view.finalize();
      views.set(figure, { view: result.view, name, width, theme, over, hidden });
      const beyond = Math.ceil($("canvas", slot).getBoundingClientRect().width - width);
      if (beyond > 1 && !over && width > 300) return draw(figure, beyond); // labels that stick out: once more, narrower
      figure.dataset.drawn = name;
      result.view.addEventListener("click", (event, item) => {
        const persona = item && item.datum && item.datum.persona;
        if (persona) follow(persona === state.follow ? "" : persona);
        else if (state.follow) follow("");
      });
    } catch (error) {
      slot.replaceChildren(make("p", `This figure could not be drawn: ${error.message}`, "error"));
      throw error;
    }
  }
  const redraw = () => Promise.all([...views.keys()].map(draw));

  function signal(name, value) {
    for (const { view } of views.values()) {
      try { view.signal(name, value).runAsync(); } catch { /* a figure without that parameter */ }
    }
  }
  function follow(persona) {
    state.follow = persona;
    const box = $("#follow");
    if (box && box.value !== persona) box.value = persona;
    const clear = $("#unfollow");
    if (clear) clear.hidden = !persona;
    signal("follow", persona);
    for (const table of tables) table.mark();
    tip.classList.remove("on");
  }

  const waiting = new Set($$("figure[data-figure]"));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) start(entry.target);
  }, { rootMargin: "400px" });
  const begun = new Map(); // figure -> the promise of its first drawing
  function start(figure) {
    if (waiting.delete(figure)) {
      seen.unobserve(figure);
      begun.set(figure, draw(figure));
    }
    return begun.get(figure) ?? Promise.resolve();
  }
  async function startAll() { for (const figure of $$("figure[data-figure]")) await start(figure); }
  /* What nobody has scrolled to is filled in when there is time: a print, a screenshot or a saved copy lacks nothing. The
     time limit is for browsers that never report idleness, headless ones among them. */
  const idle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 300 }) : setTimeout(work, 200));
  function startIdle() {
    const next = waiting.values().next().value;
    if (next) start(next).finally(() => idle(startIdle));
    else fillAll();
  }
  async function fillAll() {
    for (const table of tables) if (table.packed && !table.shown) await table.show();
    await readCompletions();
  }

  function save(blob, name) {
    const link = make("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  async function saveFigure(figure, kind) {
    await start(figure);
    const { view, name } = views.get(figure);
    if (kind === "svg") save(new Blob([await view.toSVG()], { type: "image/svg+xml" }), `${name}.svg`);
    else (await view.toCanvas(3)).toBlob((blob) => save(blob, `${name}.png`));
  }

  /* ---- tables ---- */
  const FIRST = 10, STEP = 100; // rows shown at first, and more at each demand
  const csvCell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    /* a cell that a spreadsheet would run as a formula is quoted with an apostrophe; numbers are left alone */
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  class DataTable {
    constructor(element) {
      this.element = element;
      this.body = $("tbody", element);
      this.heads = $$("thead th", element);
      this.packed = "packed" in element.dataset;
      this.limit = FIRST;
      this.order = null;
      this.query = "";
      this.heads.forEach((head, column) => $("button", head).addEventListener("click", () => this.sort(column)));
      const search = $("input[type=search]", element);
      if (search) search.addEventListener("input", () => { this.query = search.value.toLowerCase(); this.limit = FIRST; this.show(); });
      $("[data-csv]", element).addEventListener("click", async () => { await this.ready(); save(new Blob([this.csv()], { type: "text/csv" }), element.dataset.file); });
      const more = $("[data-more]", element);
      if (more) more.addEventListener("click", () => { this.limit += STEP; this.show(); });
    }
    async ready() {
      if (this.rows) return this;
      this.rows = this.packed ? await this.unpackRows() : this.readRows();
      return this;
    }
    readRows() {
      return $$("tr", this.body).map((row) => ({
        row, record: row.dataset.row,
        cells: [...row.cells].map((cell) => (cell.classList.contains("num") ? number(cell.dataset.value) : cell.dataset.value)),
        others: [...row.cells].map((cell) => ("other" in cell.dataset ? number(cell.dataset.other) : undefined)),
      }));
    }
    async unpackRows() {
      const { columns, cells, units, emphasis, instead } = await data(`table/${this.element.dataset.table}`);
      this.columns = columns;
      this.instead = instead; // words in place of a number that is none to be quoted
      for (const key of Object.keys(instead)) cells[key] = cells[key].map((value, index) => instead[key][index] ?? value);
      return cells.record.map((record, index) => ({
        index,
        record, strong: emphasis && emphasis[index], form: units ? units[index] : "plain",
        cells: columns.map((column) => cells[column.key][index]),
        others: columns.map((column) => (column.to ? cells[column.to][index] : undefined)),
      }));
    }
    build(entry) {
      if (entry.row) return entry.row;
      const row = make("tr", undefined, entry.strong ? "strong" : "");
      row.dataset.row = entry.record;
      this.columns.forEach((column, index) => row.append(this.cell(entry, column, index)));
      entry.row = row;
      return row;
    }
    cell(entry, column, index) {
      const value = entry.cells[index];
      const form = column.form === "unit" ? entry.form : column.form;
      const cell = make("td", undefined, column.to ? "num interval" : column.numeric ? `num ${column.key}` : "");
      if (!column.numeric && !column.to) cell.className = column.form === "name" ? "name" : column.key;
      const label = (element, key, shown) => {
        if (this.instead[key] && this.instead[key][entry.index] !== null) {
          element.textContent = shown;
          return element;
        }
        Object.assign(element.dataset, { record: entry.record, column: key, form });
        element.textContent = formatNumber(shown, form);
        return element;
      };
      if (column.to && value !== null && value !== "") {
        cell.append("[", label(make("data"), column.key, value), ", ", label(make("data"), column.to, entry.others[index]), "]");
      } else if (column.numeric && !column.to) label(cell, column.key, value);
      else if (!column.numeric) cell.append(make("bdi", value === null ? "" : formatNumber(value, form)));
      return cell;
    }
    sort(column) {
      const head = this.heads[column];
      const numeric = head.classList.contains("num");
      const falling = head.getAttribute("aria-sort") === "descending" ? false : head.getAttribute("aria-sort") === "ascending" ? true : numeric;
      for (const other of this.heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      this.order = { column, falling };
      this.show();
    }
    matching() {
      let rows = this.rows;
      if (this.query) rows = rows.filter((entry) => entry.cells.some((cell) => String(cell ?? "").replaceAll("_", " ").toLowerCase().includes(this.query.replaceAll("_", " "))));
      if (this.order) {
        const { column, falling } = this.order;
        rows = [...rows].sort((a, b) => compare(a.cells[column], b.cells[column], falling));
      }
      return rows;
    }
    async show() {
      this.shown = true;
      await this.ready();
      const rows = this.matching();
      const limit = rows.length <= FIRST + 6 ? rows.length : this.limit; // never a button for a handful
      const part = rows.slice(0, limit);
      this.body.replaceChildren(...part.map((entry) => this.build(entry)));
      const count = $(".count", this.element);
      if (part.length < this.rows.length) count.textContent = `${formatNumber(part.length, "count")} of ${formatNumber(this.rows.length, "count")} rows`;
      else count.textContent = "";
      const more = $("[data-more]", this.element);
      if (more) more.hidden = part.length >= rows.length;
      this.mark();
    }
    mark() {
      const wanted = state.follow.replaceAll("_", " ");
      const column = this.heads.findIndex((head) => head.dataset.key === "persona");
      if (column < 0) return;
      for (const row of this.body.rows) row.classList.toggle("followed", wanted !== "" && row.cells[column].textContent === wanted);
    }
    csv() {
      const keys = ["record", ...this.heads.flatMap((head) => (head.dataset.to ? [head.dataset.key, head.dataset.to] : [head.dataset.key]))];
      const lines = this.matching().map((entry) =>
        [entry.record, ...entry.cells.flatMap((cell, index) => (this.heads[index].dataset.to ? [cell, entry.others[index]] : [cell]))]
          .map(csvCell).join(","));
      return [keys.join(","), ...lines].join("\n") + "\n";
    }
  }
  const number = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));
  function compare(a, b, falling) {
    const missing = (value) => value === null || value === undefined || value === "";
    if (missing(a) || missing(b)) return missing(a) - missing(b); // what is missing stands last either way
    if (typeof a !== typeof b) return (typeof a === "string") - (typeof b === "string"); // words after numbers
    const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return falling ? -order : order;
  }
  const tables = $$("[data-table]").map((element) => new DataTable(element));
  const seenTable = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      seenTable.unobserve(entry.target);
      tables.find((table) => table.element === entry.target).show();
    }
  }, { rootMargin: "300px" });
  for (const table of tables) {
    if (table.packed) seenTable.observe(table.element);
    else table.show();
  }

  /* ---- completions ---- */
  const reader = $("#completions-list");
  let reading = null;
  const readCompletions = () => (reading ??= reader ? fillCompletions() : Promise.resolve());
  async function fillCompletions() {
    const all = await data("completions");
    const controls = $("#completions-controls");
    const pick = (name) => $(`[data-pick="${name}"]`, controls);
    for (const name of ["behavior", "source", "persona", "item"]) {
      const select = pick(name);
      const values = [...new Set(all.map((entry) => entry[name]).filter(Boolean))].sort((a, b) => a.localeCompare(b));
      const asked = new Map(all.map((entry) => [entry.item, entry.question]));
      const shown = (value) => (name === "item" && asked.get(value) ? `${asked.get(value).slice(0, 70)} (${value})` : words(value));
      for (const value of values) select.append(new Option(shown(value), value));
      select.parentElement.hidden = values.length < 2;
    }
    let limit = 20;
    const show = () => {
      const wanted = (entry) => ["behavior", "source", "persona", "item"].every((name) => !pick(name).value || entry[name] === pick(name).value)
        && (!pick("leaked").checked || entry.leaked);
      const found = all.filter(wanted);
      reader.replaceChildren(...found.slice(0, limit).map(completion));
      $(".count", controls).textContent = `${formatNumber(Math.min(limit, found.length), "count")} of ${formatNumber(found.length, "count")}`;
      $("#completions-more").hidden = limit >= found.length;
    };
    controls.addEventListener("input", () => { limit = 20; show(); });
    $("#completions-more").addEventListener("click", () => { limit += 40; show(); });
    show();
  }
  function completion(entry) {
    const box = make("article", undefined, "completion");
    box.dataset.completion = entry.id;
    const who = make("div", undefined, "who");
    const name = make("b");
    name.append(make("bdi", words(entry.persona)));
    who.append(name);
    const training = [entry.behavior, entry.source && `from ${words(entry.source)}`, words(entry.arm)].filter(Boolean).join(" · ");
    const when = [entry.checkpoint < 1 ? `at ${formatNumber(entry.checkpoint, "plain")} of training` : "after training", entry.seed === null ? "" : `seed ${entry.seed}`].filter(Boolean).join(" · ");
    for (const line of [entry.context === "persona" ? "" : `context: ${entry.context}`, entry.role, training]) if (line) who.append(make("div", line));
    who.append(make("div", when, "note"));
    if (entry.leaked !== null) who.append(make("span", entry.leaked ? "shows the behavior" : "does not", entry.leaked ? "badge leaked" : "badge"));
    if (entry.score !== null) {
      const score = make("data", formatNumber(entry.score, "plain"), "n");
      Object.assign(score.dataset, { record: entry.record, column: "score", form: "plain" });
      const line = make("div", "score ");
      line.append(score);
      who.append(line);
    }
    if (entry.note) who.append(make("div", entry.note));
    const text = make("div");
    if (entry.question) text.append(make("p", entry.question, "asked"));
    const answer = make("p", entry.text, "answer");
    answer.dir = "auto";
    text.append(answer);
    if (entry.cut) text.append(make("p", "Cut here; the whole answer is in the run directory.", "asked"));
    else if (entry.finish === "length") text.append(make("p", "The model was stopped at its token limit here.", "asked"));
    box.append(who, text);
    return box;
  }

  /* ---- wiring ---- */
  if (window.vegaEmbed) for (const figure of waiting) seen.observe(figure);
  else waiting.clear();
  addEventListener("load", () => idle(startIdle));
  if (reader) {
    const near = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { near.disconnect(); readCompletions(); }
    }, { rootMargin: "400px" });
    near.observe(reader);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const figure = button.closest("figure");
    if (button.dataset.save && figure) saveFigure(figure, button.dataset.save);
    if (button.dataset.tab && figure) {
      for (const other of $$("[data-tab]", figure)) other.setAttribute("aria-pressed", String(other === button));
      $(".canvas", figure).dataset.canvas = button.dataset.tab;
      draw(figure);
    }
  });
  const box = $("#follow");
  if (box) box.addEventListener("input", () => {
    const known = $$("#personas option").some((option) => option.value === box.value);
    if (known || box.value === "") follow(box.value);
  });
  const sought = $("#board-filter");
  if (sought) sought.addEventListener("input", () => {
    for (const card of $$(".card")) card.hidden = !card.textContent.toLowerCase().includes(sought.value.toLowerCase());
  });
  if ($("#unfollow")) $("#unfollow").addEventListener("click", () => follow(""));
  if ($("#arm")) $("#arm").addEventListener("input", () => { state.arm = $("#arm").value; signal("arm", state.arm); });
  if ($("#theme")) $("#theme").addEventListener("click", () => {
    chosen = { auto: "light", light: "dark", dark: "auto" }[chosen];
    memory.set(chosen);
    applyTheme();
    redraw();
  });
  system.addEventListener("change", () => { applyTheme(); redraw(); });
  let resized = 0;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 180); });
  addEventListener("scroll", () => tip.classList.remove("on"), { passive: true });
  if ($("#print")) $("#print").addEventListener("click", async () => {
    const before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    await startAll();
    await fillAll();
    await redraw();
    window.print();
    document.documentElement.dataset.theme = before;
    await redraw();
  });
  /* Folds: what is opened is drawn at its width, a link into one opens it, and a print has all of them open. */
  addEventListener("toggle", (event) => {
    if (event.target.open) for (const figure of $$("figure[data-figure]", event.target)) if (views.has(figure)) draw(figure);
  }, true);
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    const own = $(":scope > details.fold", target);
    if (own) own.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();
  let closed = [];
  addEventListener("beforeprint", () => { closed = $$("details:not([open])"); for (const fold of closed) fold.open = true; });
  addEventListener("afterprint", () => { for (const fold of closed) fold.open = false; closed = []; });
  const links = $$(".contents a");
  if (links.length) {
    const spy = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting)
        for (const link of links) link.classList.toggle("here", link.hash === `#${entry.target.id}`);
    }, { rootMargin: "-15% 0px -75% 0px" });
    for (const link of links) { const target = document.getElementById(link.hash.slice(1)); if (target) spy.observe(target); }
  }
  window.bystander = { state, views, tables, follow, startAll, fillAll, formatNumber }; // for tests and for a reader's console
})();
