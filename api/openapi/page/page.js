"use strict";
// Shows openapi.json: operations with their parameters, examples and schemas, and a form that sends the request.

let api;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function resolved(schema) {
  return schema.$ref ? schema.$ref.slice(2).split("/").reduce((at, name) => at[name], api) : schema;
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return kind(schema.items || {}) + "[]";
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any JSON";
  return schema.format ? `${type} (${schema.format})` : type;
}

function limits(schema) {
  const names = ["default", "minimum", "maximum", "minLength", "maxLength", "maxItems", "pattern"];
  return names.filter((name) => name in schema).map((name) => `${name} ${JSON.stringify(schema[name])}`).join(", ");
}

function fields(schema) {
  const table = make("table", {}, make("tr", {}, ...["field", "type", "meaning"].map((t) => make("th", {}, t))));
  for (const [name, field] of Object.entries(schema.properties || {})) {
    const needed = (schema.required || []).includes(name) ? " *" : "";
    table.append(make("tr", {},
      make("td", {}, make("code", {}, name), needed),
      make("td", {}, make("code", {}, kind(field))),
      make("td", {}, [field.description, limits(field)].filter(Boolean).join(" — "))));
  }
  return table;
}

function form(path, method, operation) {
  const box = make("div");
  const inputs = [];
  for (const parameter of operation.parameters || []) {
    const input = make("input", { value: parameter.in === "path" ? String(parameter.example || "") : "" });
    inputs.push([parameter, input]);
    box.append(make("p", {},
      make("label", {}, make("code", {}, parameter.name), " ", input, " ",
        [parameter.description, kind(parameter.schema), limits(parameter.schema)].filter(Boolean).join(" — "))));
  }
  let body = null;
  let type = null;
  if (operation.requestBody) {
    const [name, content] = Object.entries(operation.requestBody.content)[0];
    const example = Object.values(content.examples || {})[0];
    const value = example ? example.value : "";
    type = name;
    body = make("textarea", { spellcheck: "false" });
    body.value = typeof value === "string" ? value : JSON.stringify(value, null, 2);
    box.append(make("p", {}, "Body, ", make("code", {}, name)), body);
  }
  const answer = make("pre", { hidden: "" });
  const button = make("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    const headers = {};
    let target = path;
    const query = new URLSearchParams();
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value && parameter.in === "query") query.set(parameter.name, input.value);
      else if (input.value) headers[parameter.name] = input.value;
    }
    const key = document.getElementById("key").value;
    if (key) headers.Authorization = `Bearer ${key}`;
    if (type) headers["Content-Type"] = type;
    const text = query.toString();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const found = await fetch(target.slice(1) + (text ? `?${text}` : ""),
        { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
      const content = await found.text();
      let shown = content;
      try { shown = JSON.stringify(JSON.parse(content), null, 2); } catch { /* not JSON: as it is */ }
      answer.textContent = `${found.status} ${found.statusText}\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  box.append(make("p", {}, button), answer);
  return box;
}

function draw() {
  const main = document.getElementById("main");
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  main.replaceChildren(
    ...api.info.description.split("\n\n").map((text) => make("p", {}, text)),
    make("p", {}, "The full document: ", make("a", { href: "openapi.json" }, "openapi.json")),
    make("h2", {}, "Operations"));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const details = make("details", { id: operation.operationId },
        make("summary", {}, make("span", { class: "method" }, method.toUpperCase()),
          make("code", {}, path), " — ", operation.summary));
      details.addEventListener("toggle", () => {
        if (details.open && details.children.length === 1) {
          const answers = make("ul", {}, ...Object.entries(operation.responses).map(([status, found]) => {
            const content = Object.values(resolved(found).content || {})[0];
            return make("li", {}, make("code", {}, status), ` ${resolved(found).description} `,
              content ? make("code", {}, kind(content.schema)) : "");
          }));
          details.append(form(path, method, operation), make("p", {}, "Responses"), answers);
        }
      });
      main.append(details);
    }
  }
  main.append(make("h2", {}, "Schemas"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    main.append(make("details", {}, make("summary", {}, make("code", {}, name), " — ", schema.description || ""),
      fields(schema)));
  }
}

fetch("openapi.json").then((found) => found.json()).then((found) => { api = found; draw(); });
