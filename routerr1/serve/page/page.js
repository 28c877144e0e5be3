"use strict";
const $ = (id) => document.getElementById(id);
const usd = (amount) => `$${amount.toFixed(6)}`;
let stopping = null;
let readsSpend = true;

function headers() {
  const found = { "content-type": "application/json" };
  if ($("key").value) found.authorization = `Bearer ${$("key").value}`;
  if ($("budget").value) found["x-budget-usd"] = $("budget").value;
  return found;
}

async function failure(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `status ${reply.status}`;
  }
}

async function about() {
  const ready = await (await fetch("readyz")).json();
  const words = { http: "live models", recorded: "recorded replies of real models",
    simulated: "simulated models: what they say is made up" };
  $("about").textContent = `version ${ready.version}, ${ready.router}, ${words[ready.pool]}`;
  $("about").classList.toggle("warn", ready.pool === "simulated");
  readsSpend = ready.reads_spend;
  for (const each of document.querySelectorAll(".spend")) each.hidden = !readsSpend;
}

async function models() {
  const reply = await fetch("v1/models", { headers: headers() });
  if (!reply.ok) {
    $("access").open = true;
    return;
  }
  const names = (await reply.json()).data.map((model) => model.id);
  for (const select of [$("model"), $("model2")]) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) select.value = before;
  }
}

function column(title) {
  const made = $("column").content.cloneNode(true).firstElementChild;
  made.querySelector("h2").textContent = title;
  $("found").append(made);
  return made;
}

function step(into, kind, text, figures) {
  const item = document.createElement("li");
  item.className = kind;
  item.append(text);
  if (figures) {
    const small = document.createElement("span");
    small.className = "figures";
    small.textContent = ` (${figures})`;
    item.append(small);
  }
  into.querySelector(".steps").append(item);
}

function told(into, event) {
  if (event.event === "thought" && event.text) step(into, "thought", event.text);
  if (event.event === "call") step(into, "call", `asks ${event.model}: ${event.query}`);
  if (event.event === "reply") {
    step(into, "reply", event.failure ? `no reply: ${event.failure}` : event.text,
      `${usd(event.cost)}, ${event.seconds.toFixed(2)} s`);
  }
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

async function play(into, question, model, spend, signal) {
  const answer = into.querySelector(".answer");
  const body = { model, spend, messages: [{ role: "user", content: question }], stream: true,
    stream_options: { include_usage: true }, include_reasoning: true };
  try {
    const reply = await fetch("v1/chat/completions",
      { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (!reply.ok) throw new Error(await failure(reply));
    let number = null;
    for await (const chunk of events(reply)) {
      if (chunk.error) throw new Error(chunk.error.message);
      number = chunk.id;
      if (chunk.routerr1?.event) told(into, chunk.routerr1);
      for (const choice of chunk.choices) answer.textContent += choice.delta.content ?? "";
      if (chunk.usage) {
        const calls = chunk.routerr1.calls.length;
        into.querySelector(".figures:not(span)").textContent =
          `${usd(chunk.usage.cost)}, ${calls} ${calls === 1 ? "call" : "calls"}, ` +
          `${chunk.usage.total_tokens} tokens, ${chunk.routerr1.seconds.toFixed(2)} s, ` +
          `version ${chunk.routerr1.version}` +
          (chunk.routerr1.topic ? `, topic ${chunk.routerr1.topic}` : "");
        into.querySelector(".unlike").hidden = !chunk.routerr1.unlike;
      }
    }
    answer.textContent = answer.textContent.trim();
    judge(into, number);
    return answer.textContent;
  } catch (error) {
    answer.classList.add("failed");
    answer.textContent = error.name === "AbortError" ? "Stopped." : error.message;
    return answer.textContent;
  }
}

function judge(into, number) {
  const form = into.querySelector(".judge");
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { request_id: number, score: Number(event.submitter.value),
      consent: form.elements.consent.checked };
    if (form.elements.answer.value.trim()) body.answer = form.elements.answer.value.trim();
    body.question = $("question").dataset.asked;
    const reply = await fetch("v1/feedback",
      { method: "POST", headers: headers(), body: JSON.stringify(body) });
    form.querySelector(".thanks").textContent = reply.ok ? "Thank you." : await failure(reply);
  });
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || stopping) return;
  $("question").dataset.asked = question;
  $("found").replaceChildren();
  stopping = new AbortController();
  $("go").disabled = true;
  $("stop").hidden = false;
  const sides = [[$("model").value, Number($("spend").value)]];
  if ($("compare").checked) sides.push([$("model2").value, Number($("spend2").value)]);
  const said = await Promise.all(sides.map(([model, spend]) =>
    play(column(readsSpend ? `${model}, spend ${spend}` : model), question, model, spend, stopping.signal)));
  $("said").textContent = said.map((text) => `Answer: ${text}`).join(" ");
  stopping = null;
  $("go").disabled = false;
  $("stop").hidden = true;
  about();
});
$("stop").addEventListener("click", () => stopping?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  if (event.key === "Escape") stopping?.abort();
});
for (const [range, level] of [["spend", "level"], ["spend2", "level2"]]) {
  $(range).addEventListener("input", () => { $(level).value = $(range).value; });
}
$("compare").addEventListener("change", () => {
  $("model2").disabled = $("spend2").disabled = !$("compare").checked;
});
$("key").addEventListener("change", models);
about();
models();
