// Everything about one row: its runs with their values, their configuration, where they ran, what they printed.

const PLAIN_FACTS = [["status", "status"], ["started", "started_at"], ["finished", "finished_at"], ["wall seconds", "wall_seconds"],
  ["training seconds", "train_seconds"], ["GPU hours", "gpu_hours"], ["device", "device"], ["host", "host"], ["processes", "world_size"],
  ["threads", "threads"], ["precision", "precision"], ["SLURM job", "slurm_job_id"], ["times requeued", "n_requeue"], ["sweep", "sweep"],
  ["study", "study"], ["trial", "trial"], ["attempt", "attempt"], ["record", "file"], ["record id", "record_id"]];

const pairList = (pairs) => h("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));

function commandBox(title, text) {
  const copy = h("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  } }, "Copy");
  return [h("h3", {}, title, " ", navigator.clipboard ? copy : null), h("pre", { class: "command" }, text)];
}

function describeRun(run, open) {
  const values = run.values ? Object.entries(run.values).map(([metric, value]) => [metric, value]) : [];
  return h("details", { class: "run", open },
    h("summary", {}, words(`seed ${run.seed}`, run.run_id, run.status === "finished" ? "" : run.status)),
    run.error ? h("pre", { class: "error" }, words(run.error_kind, run.error)) : null,
    values.length ? [h("h3", {}, "Values of this run"), pairList(values)] : null,
    run.command ? commandBox("Command that makes this run again", run.command) : null,
    h("p", { class: "soft" }, "To check code, environment and data against the record first: ", h("code", {}, `subnetbench reproduce ${run.run_id}`)),
    h("h3", {}, "Environment"),
    pairList([["code", run.git_sha ? run.git_sha + (run.git_dirty ? ", with changes that were not committed" : "") : "installed package"],
      ...PLAIN_FACTS.map(([name, key]) => [name, run[key]]),
      ...Object.entries(run.versions).map(([name, version]) => [name, version])]),
    run.log ? [h("h3", {}, "End of the log"), h("pre", { class: "log" }, run.log)] : null);
}

function openDialog(title, body) {
  const dialog = h("dialog", { "aria-label": title },
    h("header", {}, h("h2", {}, title), h("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    h("div", { class: "body" }, body));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function openRow(data, row) {
  const group = data.groups[row.group];
  const runs = new Map();
  for (const [metric, cell] of Object.entries(row.cells)) {
    cell.runs.forEach((index, i) => {
      if (!runs.has(index)) runs.set(index, { ...data.runs[index], values: {} });
      runs.get(index).values[metric] = cell.values[i];
    });
  }
  const listed = [...runs.values()].sort((a, b) => a.seed - b.seed);
  openDialog(rowName(row), [
    h("p", { class: "soft" }, words(group.dataset, group.task, group.protocol, `data ${group.data_digest}`, row.budget,
      ...[["code", group.code_digest], ["files", group.files_digest], ["numerics", group.numerics]].map(([name, value]) => `${name} ${value || "unknown"}`))),
    h("h3", {}, "Values"),
    h("div", { class: "scroll", tabindex: 0 }, h("table", {},
      h("thead", {}, h("tr", {}, ["metric", "mean and interval", "standard deviation", "seeds", "values by seed"].map((title, i) => h("th", { scope: "col", class: i ? "number" : null }, title)))),
      h("tbody", {}, Object.entries(row.cells).map(([metric, cell]) => h("tr", {},
        h("th", { scope: "row", title: data.metrics[metric].about || null }, metric),
        h("td", { class: "number" }, cell.apart ? `not averaged: ${cell.apart}` : number(cell.mean, cell.half ?? 0)), h("td", { class: "number" }, number(cell.std)),
        h("td", { class: "number" }, String(cell.values.length)),
        h("td", { class: "number" }, cell.values.map((value) => number(value)).join("  "))))))),
    h("h3", {}, "Runs"),
    listed.map((run, i) => describeRun(run, i === 0 && listed.length === 1)),
    h("h3", {}, "Config"),
    h("pre", { class: "config" }, Object.entries(group.config).map(([name, value]) => `${name}: ${value}`).join("\n")),
  ]);
}

function openRun(data, index) {
  const run = data.runs[index];
  openDialog(run.run_id, describeRun(run, true));
}
