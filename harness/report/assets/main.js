// Puts the page together, and draws again what a choice of the reader changes.

const section = (id, title, ...children) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), children);
const controls = (...children) => h("div", { class: "controls" }, children);

function summary(data) {
  const { counts } = data;
  const parts = [`${counts.finished} finished runs`];
  for (const status of ["failed", "pruned", "partial"]) if (counts[status]) parts.push(`${counts[status]} ${status} (counted, not averaged)`);
  if (counts.trials) parts.push(`${counts.trials} trials of searches`);
  if (counts.superseded) parts.push(`${counts.superseded} superseded attempts`);
  if (counts.skipped) parts.push(`${counts.skipped} files that are no records`);
  return parts.join(", ");
}

// Costs to choose from: first those in which rows differ; lifetime costs of cascades before what every network has.
function costsOf(data, rows) {
  const order = ["macs_executed", "macs_nonzero", "sparsity", "parameters", "latency_ms"];
  const rank = (name) => (/lifetime/.test(name) ? -1 : order.includes(name) ? order.indexOf(name) : order.length);
  const costs = Object.keys(data.metrics).filter((name) => data.metrics[name].cost && known(rows, name).length);
  const differs = (name) => new Set(known(rows, name).map((row) => row.cells[name].mean)).size > 1;
  return costs.sort((a, b) => differs(b) - differs(a) || rank(a) - rank(b));
}

function start(data) {
  const names = [...data.rows.map((row) => row.method), ...data.studies.map((study) => study.method)];
  const state = { data, contest: 0, filter: "", sort: { key: "rank", descending: false }, all: false, std: false, metrics: [], look: looks(names) };
  for (const row of data.rows) row.search = words(rowName(row), row.budget, data.groups[row.group].dataset).toLowerCase();

  const boardPlace = h("div", { class: "board" });
  const contestTitle = h("p", { class: data.contests.length > 1 ? "soft paper" : "soft" });
  const columnsPlace = h("details", { class: "columns" });
  const figuresBox = h("div", { class: "figures" });
  let redraws = [];

  state.open = (row) => openRow(data, row);
  state.showAll = () => { state.all = true; update(); };
  state.sortBy = (column) => {
    const again = state.sort.key === column.key;
    const firstDown = data.metrics[column.key] && direction(data, column.key) > 0;
    state.sort = { key: column.key, descending: again ? !state.sort.descending : Boolean(firstDown) };
    update();
    [...boardPlace.querySelectorAll("button.sort")].find((button) => button.textContent === column.title)?.focus();
  };

  function update() {
    const matches = parseFilter(data, state.filter);
    const own = data.rows.filter((row) => row.contest === state.contest);
    state.total = own.length;
    state.rows = own.filter(matches);
    const column = columnsOf(state).find(({ key }) => key === state.sort.key);
    state.nameOf = namesApart(own);
    state.shown = sortedRows(state.rows, column, state.sort.descending);
    boardPlace.replaceChildren(...drawTable(state).filter(Boolean));
    for (const redraw of redraws) redraw();
  }

  function drawColumns() {
    const here = data.rows.filter((row) => row.contest === state.contest);
    const available = Object.keys(data.metrics).filter((name) => known(here, name).length);
    const box = (name, checked, onchange, title) => h("label", { class: "check", title: title || null }, h("input", { type: "checkbox", checked, onchange }), name);
    columnsPlace.replaceChildren(h("summary", {}, "Choose columns"), h("div", {},
      available.map((name) => box(name, state.metrics.includes(name), (event) => {
        state.metrics = event.target.checked ? [...state.metrics, name] : state.metrics.filter((other) => other !== name);
        update();
      }, data.metrics[name].about)),
      box("standard deviations", state.std, (event) => { state.std = event.target.checked; update(); })));
  }

  function chooseContest(index) {
    state.contest = index;
    contestTitle.textContent = data.contests[index]?.title ?? "No run has a value to show.";
    state.metrics = [...(data.contests[index]?.metrics ?? [])];
    state.sort = { key: "rank", descending: false };
    state.all = false;
    drawColumns();
    drawFigures();
    update();
  }

  function addFigure(id, caption, draw) {
    const figure = figureBox(id, caption, draw);
    redraws.push(figure.redraw);
    return figure;
  }

  function drawFigures() {
    redraws = [];
    const rows = data.rows.filter((row) => row.contest === state.contest);
    const qualities = Object.keys(data.metrics).filter((name) => !data.metrics[name].cost && known(rows, name).length);
    const lead = leadMetric(state);
    const options = (list) => list.map((name) => [name, name]);
    const sections = [];
    const costs = costsOf(data, rows);
    if (costs.length && qualities.length) {
      const chosen = { cost: costs[0], quality: lead };
      const figure = addFigure("trade-off", `Quality against cost. Bars are intervals (over what they are, the notes say; up to ${MOST_BARS} rows have them), the dashed line is the Pareto front: no row is better in both.`,
        (width) => drawTradeOff(state, width, chosen.cost, chosen.quality, false));
      sections.push(section("cost", "Quality against cost", controls(
        choice("Cost", options(costs), chosen.cost, (value) => { chosen.cost = value; figure.redraw(); }),
        choice("Quality", options(qualities), chosen.quality, (value) => { chosen.quality = value; figure.redraw(); })), figure));
    }
    const lifetime = costs.filter((name) => /lifetime/.test(name));
    if (lifetime.length && qualities.length) {
      const chosen = { cost: lifetime[0], quality: qualities.find((name) => /recall_at_10$/.test(name)) ?? lead };
      const figure = addFigure("cascade-curve", "What a cascade finds against what it costs over its lifetime; a line joins the settings of one method.",
        (width) => drawTradeOff(state, width, chosen.cost, chosen.quality, true));
      sections.push(section("cascades", "Cascades", controls(
        choice("Cost", options(lifetime), chosen.cost, (value) => { chosen.cost = value; figure.redraw(); }),
        choice("Quality", options(qualities), chosen.quality, (value) => { chosen.quality = value; figure.redraw(); })), figure));
    }
    const matrices = matrixGroups(state);
    if (matrices.length) {
      const chosen = { index: 0, metric: lead };
      const name = ([, members]) => words(members[0].method, members[0].network, members[0].config, members[0].preset === "default" ? "" : members[0].preset);
      const figure = addFigure("matrix", "Search of a gallery that one network embedded, with queries that another embedded. Values are means over seeds.",
        (width) => drawMatrix(state, width, matrices[chosen.index][1], chosen.metric));
      sections.push(section("matrices", "Capacity against capacity", controls(
        choice("Configuration", matrices.map((group, i) => [i, name(group)]), 0, (value) => { chosen.index = Number(value); figure.redraw(); }),
        choice("Metric", options(qualities), chosen.metric, (value) => { chosen.metric = value; figure.redraw(); })), figure));
    }
    if (qualities.length) {
      const chosen = { metric: lead };
      const figure = addFigure("seeds", `Every seed of every row shown (the first ${MOST_LINES}), with its mean and ${100 * data.confidence} % interval (over what it is, the notes say).`,
        (width) => drawSeeds(state, width, chosen.metric));
      sections.push(section("scatter", "Seeds", controls(choice("Metric", options(qualities), lead, (value) => { chosen.metric = value; figure.redraw(); })), figure));
    }
    const tags = [...new Set(rows.flatMap((row) => Object.values(row.cells).flatMap((cell) => cell.runs.flatMap((index) => Object.keys(data.runs[index].history)))))].sort();
    if (tags.length) {
      const chosen = { tag: tags.find((tag) => tag === `validation/${lead}`) ?? tags[0] };
      const figure = addFigure("curves", `Learning curves of the rows shown, a line a run (the first ${MOST_LINES}).`, (width) => drawCurves(state, width, chosen.tag));
      sections.push(section("learning", "Learning curves", controls(choice("Curve", options(tags), chosen.tag, (value) => { chosen.tag = value; figure.redraw(); })), figure));
    }
    const overall = overallSection(data, addFigure);
    if (overall) sections.push(overall);
    if (data.studies.length) {
      const chosen = {};
      const [tables, parameter, objective] = [h("div", {}), h("div", { class: "controls" }), h("div", { class: "controls" })];
      const figure = addFigure("study", "Trials of a search in order; the line is the best finished trial so far. Values are on validation data.",
        (width) => drawStudy(state, width, chosen.study));
      const slice = addFigure("slice", "What one parameter was set to, and what came of it; each mark is a trial.", (width) => drawSlice(state, width, chosen.study, chosen.field));
      const bars = addFigure("importances", "How much of the differences among good trials each parameter accounts for.", (width) => drawImportances(width, chosen.study, chosen.metric));
      const choose = (study) => {
        Object.assign(chosen, { study, metric: study.search?.objectives[0] });
        const ordered = (study.search?.importances[chosen.metric] ?? []).map(([name]) => name).filter((name) => study.varied.includes(name));
        const fields = [...new Set([...ordered, ...study.varied])];
        chosen.field = fields[0];
        parameter.replaceChildren(choice("Parameter", options(fields), chosen.field, (value) => { chosen.field = value; slice.redraw(); }));
        objective.replaceChildren(...(study.search?.objectives.length > 1 ? [choice("Objective", options(study.search.objectives), chosen.metric, (value) => { chosen.metric = value; bars.redraw(); })] : []));
        tables.replaceChildren(...studyTables(state, study));
        for (const each of [figure, slice, bars]) each.redraw();
      };
      const title = (study) => words(study.study, study.method, study.dataset, `${study.trials.length} trials`);
      sections.push(section("tuning", "Tuning", controls(choice("Study", data.studies.map((study, i) => [i, title(study)]), 0, (value) => choose(data.studies[value]))),
        figure, h("h3", {}, "Slices"), parameter, slice, h("h3", {}, "Importances"), objective, bars, tables));
      choose(data.studies[0]);
    }
    figuresBox.replaceChildren(...sections);
    drawLinks();
  }

  const links = h("ul", {});
  function drawLinks() {
    const sections = [...document.querySelectorAll("main section"), ...figuresBox.children];
    const listed = new Map(sections.map((part) => [part.id, part.querySelector("h2").textContent]));
    links.replaceChildren(...[...listed].map(([id, title]) => h("li", {}, h("a", { href: `#${id}` }, title))));
  }

  const board = section("board", "Leaderboard",
    controls(
      data.contests.length > 1 ? choice("Data, task and protocol", data.contests.map((contest, i) => [i, contest.title]), 0, (value) => chooseContest(Number(value))) : null,
      h("label", { class: "wide" }, "Filter: words, and comparisons such as sparsity>=0.5 or lr<0.1",
        h("input", { type: "search", id: "filter", oninput: (event) => { state.filter = event.target.value; update(); } }))),
    contestTitle,
    columnsPlace, boardPlace);

  const page = document.getElementById("page");
  page.replaceChildren(...[
    h("h1", {}, data.title),
    h("p", { class: "soft" }, words(summary(data), data.created, data.program)),
    h("nav", { "aria-label": "Sections" }, links),
    board, figuresBox, published(data), unfinished(data),
    section("notes", "How to read this", h("ul", { class: "notes" }, data.notes.map((note) => h("li", {}, note)))),
  ].filter(Boolean));
  chooseContest(0);
  // Every row belongs on paper, also those beyond the first page of the screen.
  window.addEventListener("beforeprint", () => state.showAll());
  document.documentElement.dataset.ready = "true";
}

function published(data) {
  if (!data.published.length) return null;
  const comparable = data.published.filter((line) => line.comparable), others = data.published.filter((line) => !line.comparable);
  return section("published", "Published numbers",
    comparable.length ? publishedTable("Published numbers", "difference", comparable) : null,
    others.length ? h("h3", {}, "Not comparable") : null,
    others.length ? publishedTable("Published numbers that are not comparable", "why not", others) : null);
}

function publishedTable(label, column, lines) {
  const head = ["method", "data set", "network", "metric", "measured", "published", column, "verified", "as", "source"];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {},
    h("thead", {}, h("tr", {}, head.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, lines.map((line) => h("tr", {},
      h("th", { scope: "row" }, line.method), h("td", {}, line.dataset), h("td", {}, words(line.network, line.variant)), h("td", {}, line.metric),
      h("td", { class: "number" }, number(line.measured, line.half_width ?? 0)),
      h("td", { class: "number" }, line.low === line.high ? number(line.published) : `${number(line.low)} to ${number(line.high)}`),
      line.comparable ? h("td", { class: "number" }, (line.difference > 0 ? "+" : "") + line.difference.toFixed(4)) : h("td", { class: "text" }, line.reason),
      h("td", {}, line.verified === true ? "yes" : line.verified === false ? "no" : String(line.verified)), h("td", {}, line.label),
      h("td", { class: "text" }, words(line.source, line.citation, line.note)))))));
}

function unfinished(data) {
  if (!data.unfinished.length) return null;
  return section("failures", "Runs without a result", h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs without a result" }, h("table", {},
    h("thead", {}, h("tr", {}, ["run", "status", "kind", "error"].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, data.unfinished.map((index) => {
      const run = data.runs[index];
      return h("tr", {}, h("th", { scope: "row" }, h("button", { type: "button", class: "row", onclick: () => openRun(data, index) }, run.run_id)),
        h("td", {}, run.status), h("td", {}, run.error_kind), h("td", { class: "text" }, run.error));
    })))));
}

unpack(document.getElementById("content").textContent.trim()).then(start).catch((error) => {
  document.getElementById("loading")?.replaceChildren(`This browser cannot show the report: ${error.message}`);
  throw error;
});
