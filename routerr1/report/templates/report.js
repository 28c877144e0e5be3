"use strict";
(() => {
  // Replies are untrusted: everything is set as text, never as markup.
  const { total, quota, labels, played } = JSON.parse(document.getElementById("played").textContent);
  const PAGE = 25;
  const at = (id) => document.getElementById(id);
  let shown = PAGE;

  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  };
  const unique = (values) => [...new Set(values)].sort((a, b) => (a > b ? 1 : a < b ? -1 : 0));
  const options = (id, values, first, named = {}) => {
    const all = make("option", "", "all");
    all.value = "";
    at(id).append(all);
    for (const value of values) {
      const option = make("option", "", named[value] ?? String(value));
      option.value = String(value);
      option.selected = value === first;
      at(id).append(option);
    }
  };

  for (const row of played) {
    row.text = [row.question, row.answer, ...row.gold, ...row.turns.flatMap((turn) =>
      [turn.thought, turn.raw, turn.call && turn.call.query, turn.call && turn.call.reply])]
      .filter(Boolean).join(" ").toLowerCase();
  }
  const routers = unique(played.map((row) => row.router));
  options("router", routers, routers.includes("policy") ? "policy" : undefined, labels);
  options("model", unique(played.flatMap((row) => row.called)));
  options("count", unique(played.map((row) => row.called.length)));
  options("dataset", unique(played.map((row) => row.dataset)));
  const seeds = unique(played.map((row) => row.seed));
  options("seed", seeds);
  at("seed").parentElement.hidden = seeds.length < 2;

  const dollars = (cost) => `$${(cost * 1000).toFixed(4)} per 1,000`;
  const labelled = (label, text, className) => {
    const node = make("p", className);
    node.append(make("span", "label", label), document.createTextNode(text));
    return node;
  };

  const callNode = (call) => {
    const node = make("div", "call");
    const paid = `${call.latency_s.toFixed(2)} s, ${call.tokens} reply tokens, ${dollars(call.cost_usd)} calls`;
    node.append(labelled(`calls ${call.model || "no model"}${call.wanted ? ` (the policy names ${call.wanted})` : ""}`, call.query));
    node.append(labelled(`${call.failure ? `failed: ${call.failure}` : "reply"}, ${paid}`, call.reply || call.note || ""));
    return node;
  };

  const fill = (row, body) => {
    for (const turn of row.turns) {
      if (turn.thought) body.append(labelled("thinks", turn.thought, "thought"));
      if (turn.raw) body.append(labelled("writes", turn.raw));
      if (turn.call) body.append(callNode(turn.call));
    }
    body.append(labelled("answer", row.answer ?? "none"));
    body.append(labelled("reference answers", row.gold.join(" or ")));
    body.append(labelled("ended", `${row.stopped}; format ${row.format_valid ? "kept" : "broken"}; F1 ${row.f1}`));
  };

  const card = (row) => {
    const node = make("details", "played");
    const head = make("summary");
    const verdict = row.right ? "right" : "wrong";
    head.append(make("span", `badge ${verdict}`, verdict), make("span", "q", row.question));
    head.append(make("span", "facts",
      `${labels[row.router]}${seeds.length > 1 ? `, seed ${row.seed}` : ""}${row.called.length ? `: ${row.called.join(", ")}` : ""} · ${row.latency_s.toFixed(2)} s · ${dollars(row.cost_usd)}`));
    node.append(head);
    node.addEventListener("toggle", () => {
      if (node.open && node.childElementCount === 1) {
        const body = make("div", "turns");
        fill(row, body);
        node.append(body);
      }
    });
    return node;
  };

  const matches = () => {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [router, right, model, count, dataset, seed] =
      ["router", "right", "model", "count", "dataset", "seed"].map((id) => at(id).value);
    return played.filter((row) =>
      (!router || row.router === router) &&
      (!right || row.right === (right === "right")) &&
      (!model || row.called.includes(model)) &&
      (!count || row.called.length === Number(count)) &&
      (!dataset || row.dataset === dataset) &&
      (!seed || row.seed === Number(seed)) &&
      words.every((word) => row.text.includes(word)));
  };

  const draw = () => {
    const found = matches();
    at("list").replaceChildren(...found.slice(0, shown).map(card));
    at("found").textContent = `${found.length} of ${played.length} trajectories` +
      (total > played.length ? ` (this page holds ${played.length} of ${total}: at most ${quota} of each router, training seed and ` +
        `data set, evenly spread over the questions)` : "");
    at("more").hidden = found.length <= shown;
  };

  at("filters").addEventListener("input", () => { shown = PAGE; draw(); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("more").addEventListener("click", () => { shown += PAGE; draw(); });
  draw();
})();
