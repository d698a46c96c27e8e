// The leaderboard: which rows are shown, in which order, with which metrics.

const PAGE_OF_ROWS = 200;
const DESCRIBED = [["network", "network"], ["variant", "variant"], ["gallery_variant", "gallery"], ["input_of", "input of"], ["config", "config"],
  ["budget", "budget"], ["preset", "preset"], ["tuned", "tuned"], ["code", "code"], ["files", "files"], ["numerics", "numerics"]];
const COMPARISONS = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
};

// What a name means for a row: a metric's mean, a column, or a field of the config.
function valueOf(data, row, name) {
  if (row.cells[name]) return row.cells[name].mean;
  if (Object.hasOwn(row, name)) return row[name];
  const { config, dataset } = data.groups[row.group];
  return name === "dataset" ? dataset : config[name] ?? config[`config.${name}`];
}

// A filter such as `edge sparsity>=0.5 lr<0.1`: every word must be found in the row's names, every comparison hold.
function parseFilter(data, text) {
  const tests = (text.match(/\S+/g) || []).map((word) => {
    const found = word.match(/^([\w.]+)(<=|>=|!=|=|<|>)(.+)$/);
    if (!found) {
      const wanted = word.toLowerCase();
      return (row) => row.search.includes(wanted);
    }
    const [, name, sign, right] = found;
    return (row) => {
      const left = valueOf(data, row, name);
      if (left === null || left === undefined) return false;
      const numeric = typeof left === "number" && right.trim() !== "" && !Number.isNaN(Number(right));
      return numeric ? COMPARISONS[sign](left, Number(right)) : COMPARISONS[sign](String(left), right);
    };
  });
  return (row) => tests.every((test) => test(row));
}

function leadMetric(state) {
  return state.data.contests[state.contest]?.lead || "";
}

// Between which ranks the true one lies, or why a row has no rank.
function rankInterval(row, lead) {
  const cell = row.cells[lead];
  if (!cell?.rank) return cell?.values.length === 1 ? "one seed" : "";
  const [best, worst] = cell.ranks;
  return best < worst ? `${best}–${worst}` : String(best);
}

// The columns of the table: {key, title, numeric, value(row) to sort by, show(row)}.
function columnsOf(state) {
  const { data } = state;
  const rows = data.rows.filter((row) => row.contest === state.contest);
  const lead = leadMetric(state);
  const ranks = rows.map((row) => row.cells[lead]?.rank);
  const columns = [{ key: "method", title: "method", value: (row) => row.method }];
  if (rows.some((row) => row.cells[lead])) {
    columns.push({ key: "rank", title: "rank", numeric: true, value: (row) => row.cells[lead]?.rank, show: (row) => row.cells[lead]?.rank || "–" });
    columns.push({ key: "rank_range", title: "rank range", numeric: true, value: (row) => row.cells[lead]?.ranks?.[0], show: (row) => rankInterval(row, lead) });
    if (rows.some((row) => row.failed)) columns.push({ key: "failed", title: "failed", numeric: true, value: (row) => row.failed, show: (row) => row.failed });
  }
  for (const [key, title] of DESCRIBED) {
    if (new Set(rows.map((row) => row[key])).size > 1) {
      columns.push({ key, title, value: (row) => row[key], show: (row) => (key === "tuned" ? (row.tuned ? "tuned" : "") : row[key]) });
    }
  }
  for (const key of ["seeds", "failed", "pruned", "partial"]) {
    if (columns.some((column) => column.key === key)) continue;
    if (key === "seeds" || rows.some((row) => row[key])) columns.push({ key, title: key, numeric: true, value: (row) => row[key], show: (row) => row[key] });
  }
  if (rows.some((row) => row.chosen_from)) {
    columns.push({ key: "chosen_from", title: "chosen from", numeric: true, value: (row) => row.chosen_from, show: (row) => row.chosen_from });
    columns.push({ key: "validation", title: "validation", numeric: true, value: (row) => row.validation, show: (row) => number(row.validation) });
  }
  for (const metric of state.metrics) {
    columns.push({ key: metric, title: metric, numeric: true, value: (row) => row.cells[metric]?.mean, show: (row) => figureOf(row, metric, state) });
    if (metric === lead && rows.some((row) => row.cells[lead]?.trivial !== undefined)) {
      columns.push({ key: "trivial", title: "trivial", numeric: true, value: (row) => row.cells[lead]?.trivial, show: (row) => trivialOf(row.cells[lead]) });
    }
    if (metric === lead && rows.some((row) => row.cells[lead]?.frozen !== undefined)) {
      columns.push({ key: "frozen", title: "frozen", numeric: true, value: (row) => row.cells[lead]?.frozen, show: (row) => frozenOf(row.cells[lead]) });
    }
  }
  return columns;
}

function figureOf(row, metric, state) {
  const cell = row.cells[metric];
  if (!cell) return "–";
  if (cell.apart) return h("span", { title: `not averaged: times of several machines (${cell.apart})` }, "–*");
  const fewer = cell.values.length !== row.seeds ? ` [${cell.values.length}]` : "";
  const std = state.std && cell.std !== null ? h("span", { class: "spread" }, ` sd ${number(cell.std)}`) : null;
  return [number(cell.mean, cell.half ?? 0) + fewer, std];
}

function trivialOf(cell) {
  if (cell?.trivial === undefined) return "";
  const name = cell.baseline && cell.baseline !== "trivial" ? cell.baseline : "";
  return besideOf(cell.trivial, cell.clears, name, "the best trivial baseline without a network");
}

function frozenOf(cell) {
  if (cell?.frozen === undefined) return "";
  return besideOf(cell.frozen, cell.clears_frozen, cell.frozen_baseline, "the best baseline on features of a frozen network");
}

function besideOf(value, clears, name, kind) {
  const mark = { true: " ✓", false: " ✗" }[clears] ?? "";
  const against = name ? `${name}, ${kind}` : kind;
  const meaning = { true: `the whole interval is better than ${against}`, false: `the interval does not clear ${against}` }[clears];
  return h("span", { title: meaning }, number(value) + mark + (name ? ` ${name}` : ""));
}

function compareValues(a, b) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortedRows(rows, column, descending) {
  if (!column) return rows;
  const missing = (row) => [null, undefined, ""].includes(column.value(row));
  // What is missing stays last in both directions.
  return [...rows].sort((a, b) => (missing(a) || missing(b) || !descending ? 1 : -1) * compareValues(column.value(a), column.value(b)));
}

function drawTable(state) {
  const columns = columnsOf(state);
  const sorting = columns.find((column) => column.key === state.sort.key);
  const rows = sortedRows(state.rows, sorting, state.sort.descending);
  const heads = columns.map((column) => {
    const sorted = column === sorting ? (state.sort.descending ? "descending" : "ascending") : "none";
    const about = state.data.metrics[column.key]?.about;
    return h("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": sorted, title: about || null },
      h("button", { type: "button", class: "sort", onclick: () => state.sortBy(column) }, column.title));
  });
  const body = rows.slice(0, state.all ? Infinity : PAGE_OF_ROWS).map((row) => h("tr", {}, columns.map((column) => {
    if (column.key === "method") {
      return h("th", { scope: "row" }, h("button", { type: "button", class: "row", onclick: () => state.open(row), "aria-label": `Runs of ${rowName(row)}` }, row.method));
    }
    const shown = column.show(row);
    const kind = String(shown ?? "").length > 24 ? "long text" : "text";
    return h("td", { class: column.numeric ? "number" : kind }, shown);
  })));
  const more = rows.length > PAGE_OF_ROWS && !state.all
    ? h("p", { class: "more" }, `The first ${PAGE_OF_ROWS} of ${rows.length} rows. `, h("button", { type: "button", onclick: () => state.showAll() }, "Show all"))
    : null;
  return [
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Leaderboard table" },
      h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body))),
    h("p", { class: "soft", role: "status" }, `${rows.length} of ${state.total} rows. Open a row by its method: seeds, commands, environment, logs.`),
    more,
  ];
}
