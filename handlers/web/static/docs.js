// The API reference, drawn from /openapi.json. It knows OpenAPI 3.1, nothing of this API.

import { fill, h } from './dom.js';
import { onLang, t } from './i18n.js';
import { copy, start } from './shell.js';
import { Sign } from './sign.js';

const methods = ['get', 'put', 'post', 'delete', 'patch', 'head', 'options'];
const depthLimit = 6;
const main = document.getElementById('main');
const contents = document.getElementById('contents');
const find = document.getElementById('find');

start();
const sign = new Sign();
let spec = null;
let operations = [];

/** Follows references inside the document. */
function resolve(node) {
  let target = node;
  for (let i = 0; target?.$ref && i < 20; i += 1) {
    target = target.$ref.replace(/^#\//, '').split('/').reduce((at, part) => at?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], spec);
  }
  return target ?? {};
}

/** The schema with allOf parts put together. */
function flat(node) {
  const schema = resolve(node);
  if (!schema.allOf) return schema;
  // What stands beside the parts narrows them.
  return [...schema.allOf.map(flat), { ...schema, allOf: undefined }].reduce((sum, part) => ({
    ...sum, ...part, properties: { ...sum.properties, ...part.properties }, required: [...(sum.required ?? []), ...(part.required ?? [])],
  }), {});
}

function typeText(node) {
  const schema = flat(node);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.oneOf || schema.anyOf) return (schema.oneOf ?? schema.anyOf).map(typeText).join(' | ');
  const types = [schema.type ?? (schema.properties ? 'object' : 'any')].flat();
  return types.map((type) => (type === 'array' ? `array of ${typeText(schema.items ?? {})}` : type === 'string' && schema.format ? `string (${schema.format})` : type)).join(' | ');
}

function limits(schema) {
  const notes = [];
  if (schema.enum) notes.push(schema.enum.map((v) => JSON.stringify(v)).join(', '));
  if (schema.minimum !== undefined || schema.maximum !== undefined) notes.push(`${schema.minimum ?? '−∞'} … ${schema.maximum ?? '∞'}`);
  if (schema.minLength !== undefined || schema.maxLength !== undefined) notes.push(`${schema.minLength ?? 0}–${schema.maxLength ?? '∞'} characters`);
  if (schema.maxItems !== undefined) notes.push(`at most ${schema.maxItems} items`);
  if (schema.pattern) notes.push(schema.pattern);
  if (schema.default !== undefined) notes.push(`default ${JSON.stringify(schema.default)}`);
  return notes.join(' · ');
}

/** An example value: the one the document gives, or one made from the schema. */
function example(node, depth = 0, seen = []) {
  const schema = flat(node);
  if (schema.examples?.length) return schema.examples[0];
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.oneOf || schema.anyOf) return example((schema.oneOf ?? schema.anyOf)[0], depth, seen);
  const type = [schema.type ?? (schema.properties ? 'object' : null)].flat().find((name) => name !== 'null');
  if (depth > depthLimit || seen.includes(schema)) return type === 'array' ? [] : {};
  if (type === 'object') {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).filter(([name]) => name !== '$schema')
      .map(([name, property]) => [name, example(property, depth + 1, [...seen, schema])]));
  }
  if (type === 'array') return [example(schema.items ?? {}, depth + 1, [...seen, schema])];
  if (type === 'string') return { 'date-time': '2026-03-01T08:30:00Z', date: '2026-03-01', email: 'name@example.com', uri: 'https://example.com' }[schema.format] ?? 'text';
  return { integer: 1, number: 1, boolean: true }[type] ?? null;
}

function properties(node, depth = 0, seen = []) {
  const schema = flat(node);
  const inner = schema.type === 'array' || schema.items ? flat(schema.items ?? {}) : schema;
  const entries = Object.entries(inner.properties ?? {}).filter(([name]) => name !== '$schema');
  if (!entries.length || depth > depthLimit || seen.includes(inner)) return null;
  return h('ul', { class: 'facts' }, entries.map(([name, property]) => {
    const s = flat(property);
    const below = properties(property, depth + 1, [...seen, inner]);
    return fact(name, typeText(property), (inner.required ?? []).includes(name), s,
      below && (depth < 1 ? below : h('details', {}, h('summary', {}, t('docs.fields')), below)));
  }));
}

const fact = (name, type, required, schema, below) => h('li', {},
  h('div', {}, h('span', { class: 'name' }, name), ' ', h('span', { class: 'type' }, type), ' ', required && h('span', { class: 'must' }, t('docs.required'))),
  schema.description && h('span', { class: 'about' }, schema.description),
  limits(schema) && h('span', { class: 'type' }, limits(schema)),
  below);

const bodyOf = (content) => Object.entries(content ?? {})[0];

function sample(title, text) {
  const code = h('code', {}, text);
  const label = h('button', { type: 'button', onclick: async (event) => { const button = event.currentTarget; button.textContent = await copy(text); setTimeout(() => { button.textContent = t('docs.copy'); }, 2000); } }, t('docs.copy'));
  return h('figure', { class: 'sample' }, h('figcaption', {}, h('span', {}, title), label), h('pre', { tabindex: '0' }, code));
}

function request(op, body) {
  const query = op.parameters.filter((p) => p.in === 'query' && p.required).map((p) => `${p.name}=…`).join('&');
  const lines = [`curl${op.method === 'get' ? '' : ` -X ${op.method.toUpperCase()}`} '${location.origin}${op.path}${query && `?${query}`}'`];
  if (op.secured) lines.push('  -H "Authorization: Bearer $TOKEN"');
  if (op.parameters.some((p) => p.in === 'header' && p.name.toUpperCase() === 'X-APP-ID')) lines.push('  -H "X-APP-ID: $ORGANIZATION"');
  if (body !== undefined) lines.push("  -H 'Content-Type: application/json'", `  -d '${JSON.stringify(body, null, 2)}'`);
  return lines.join(' \\\n');
}

function given(media) {
  if (!media) return undefined;
  const named = Object.values(media.examples ?? {}).map(resolve)[0];
  return media.example ?? named?.value ?? (media.schema ? example(media.schema) : undefined);
}

function section(op) {
  const body = resolve(op.requestBody);
  const [mediaType, media] = bodyOf(body.content) ?? [];
  const sent = given(media);
  const responses = Object.entries(op.responses ?? {}).map(([status, response]) => ({ status, response: resolve(response) }));
  const good = responses.find(({ status }) => status.startsWith('2'));
  const [, answer] = bodyOf(good?.response.content) ?? [];
  const answered = given(answer);
  return h('section', { class: 'operation', id: op.id, 'data-testid': 'operation' },
    h('header', {}, h('h3', {}, op.summary || `${op.method.toUpperCase()} ${op.path}`),
      h('p', { class: 'address' }, h('span', { class: `method ${op.method}` }, op.method), h('span', {}, op.path), op.deprecated && h('span', { class: 'must' }, t('docs.deprecated')))),
    h('div', { class: 'prose' },
      op.description && h('p', {}, op.description),
      !op.webhook && h('p', { class: 'hint' }, op.secured ? t('docs.secured') : t('docs.public')),
      op.parameters.length > 0 && [h('h4', {}, t('docs.parameters')),
        h('ul', { class: 'facts' }, op.parameters.map((p) => {
          const s = flat(p.schema ?? {});
          return fact(p.name, `${typeText(p.schema ?? {})} · ${p.in}`, p.required, { ...s, description: p.description ?? s.description });
        }))],
      media && [h('h4', {}, t('docs.body'), ' ', h('span', { class: 'hint' }, mediaType)), properties(media.schema ?? {})],
      h('h4', {}, t('docs.answers')),
      h('ul', { class: 'facts' }, responses.filter(({ status }) => status.startsWith('2')).map(({ status, response }) => {
        const [, content] = bodyOf(response.content) ?? [];
        const below = content?.schema && status.startsWith('2') ? properties(content.schema) : null;
        return h('li', {}, h('div', {}, h('span', { class: `status ${status.startsWith('2') ? 'ok' : 'bad'}` }, status), ' ', h('span', { class: 'about' }, response.description ?? '')),
          below && h('details', {}, h('summary', {}, t('docs.fields')), below));
      }), h('li', { class: 'refusals' }, responses.filter(({ status }) => !status.startsWith('2')).map(({ status, response }) =>
        h('span', {}, h('span', { class: 'status bad' }, status), ' ', h('span', { class: 'about' }, response.description ?? '')))))),
    h('div', { class: 'samples' },
      sample(t('docs.request'), op.webhook ? JSON.stringify(sent, null, 2) : request(op, sent)),
      answered !== undefined && sample(`${t('docs.answer')} ${good.status}`, JSON.stringify(answered, null, 2))));
}

/** A path that may break after its slashes. */
const breakable = (path) => path.split(/(?<=\/)/).flatMap((part) => [part, h('wbr')]);

function collect() {
  const list = [];
  const items = [...Object.entries(spec.paths ?? {}).map(([path, item]) => [path, item, false]), ...Object.entries(spec.webhooks ?? {}).map(([name, item]) => [name, item, true])];
  for (const [path, item, webhook] of items) {
    for (const method of methods) {
      const op = item[method];
      if (!op) continue;
      const security = op.security ?? spec.security ?? [];
      list.push({
        ...op, path, method, webhook,
        id: (op.operationId ?? `${method}-${path}`).replace(/[^\w-]+/g, '-'),
        tag: op.tags?.[0] ?? path.split('/')[1] ?? 'api',
        parameters: [...(item.parameters ?? []), ...(op.parameters ?? [])].map(resolve),
        secured: security.length > 0 && !security.some((s) => Object.keys(s).length === 0),
      });
    }
  }
  const order = (spec.tags ?? []).map((tag) => tag.name);
  const rank = (tag) => (order.includes(tag) ? order.indexOf(tag) : order.length);
  return list.sort((a, b) => rank(a.tag) - rank(b.tag) || a.tag.localeCompare(b.tag));
}

const matches = (op, words) => {
  const text = `${op.method} ${op.path} ${op.summary ?? ''} ${op.description ?? ''} ${op.tag}`.toLowerCase();
  return words.every((word) => text.includes(word));
};

const errorCodes = (words) => (spec['x-error-codes'] ?? []).filter((e) => words.every((word) => `${e.code} ${e.status} ${e.meaning} ${e.remedy}`.toLowerCase().includes(word)));

function draw() {
  const words = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const shown = operations.filter((op) => matches(op, words));
  const codes = errorCodes(words);
  const tags = [...new Set(shown.map((op) => op.tag))];
  const about = (name) => (spec.tags ?? []).find((tag) => tag.name === name)?.description;
  document.getElementById('found').textContent = words.length ? t('docs.found', { n: shown.length }) : '';
  contents.className = words.length ? 'searching' : '';
  fill(contents,
    tags.map((tag) => h('details', { open: true }, h('summary', {}, tag),
      h('ul', {}, shown.filter((op) => op.tag === tag).map((op) => h('li', {}, h('a', { href: `#${op.id}` }, h('span', { class: `method ${op.method}` }, op.method), h('span', { class: 'path' }, breakable(op.path)))))))),
    codes.length > 0 && h('ul', {}, h('li', {}, h('a', { href: '#error-codes' }, h('span', { class: 'method' }, '4xx'), h('span', {}, t('docs.errors'))))));
  fill(main,
    !words.length && h('div', { class: 'intro' }, h('h1', {}, spec.info?.title ?? 'API'),
      h('p', { class: 'hint' }, `${t('docs.version')} ${spec.info?.version ?? ''} · OpenAPI ${spec.openapi ?? ''}`),
      spec.info?.description && h('div', { class: 'prose' }, h('p', { class: 'lead' }, spec.info.description))),
    shown.length + codes.length === 0 && h('p', { class: 'hint none' }, t('docs.none')),
    tags.map((tag) => [h('h2', { class: 'tag' }, tag), about(tag) && h('p', { class: 'lead' }, about(tag)), shown.filter((op) => op.tag === tag).map(section)]),
    codes.length > 0 && h('section', { id: 'error-codes', 'data-testid': 'error-codes' },
      h('h2', { class: 'tag' }, t('docs.errors')),
      h('div', { class: 'wide', tabindex: '0', role: 'group', 'aria-label': t('docs.errors') }, h('table', { class: 'codes' },
        h('thead', {}, h('tr', {}, ['docs.code', 'docs.status', 'docs.meaning', 'docs.remedy'].map((key) => h('th', { scope: 'col' }, t(key))))),
        h('tbody', {}, codes.map((e) => h('tr', { id: e.code }, h('td', {}, h('code', {}, e.code)), h('td', {}, String(e.status)), h('td', {}, e.meaning), h('td', {}, e.remedy))))))));
  mark();
}

/** Marks the operation being read in the contents. */
function mark() {
  let here = null;
  for (const element of main.querySelectorAll('.operation, #error-codes')) {
    if (element.getBoundingClientRect().top < innerHeight * 0.3) here = element.id;
    else break;
  }
  for (const link of contents.querySelectorAll('a')) {
    if (link.hash === `#${here}`) link.setAttribute('aria-current', 'location');
    else link.removeAttribute('aria-current');
  }
}

/** Goes to what the address names. It was not there yet when the page was opened, so the browser did not. */
function show() {
  for (const row of main.querySelectorAll('tr.here')) row.classList.remove('here');
  const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  if (named.matches('tr')) named.classList.add('here');
  named.scrollIntoView({ block: named.matches('tr') ? 'center' : 'start' });
}

async function load() {
  fill(main, h('p', { 'aria-busy': 'true' }, t('loading')));
  try {
    const response = await fetch('/openapi.json', { signal: AbortSignal.timeout(15000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    spec = await response.json();
  } catch {
    sign.set('disconnected');
    fill(main, h('p', { class: 'problem', role: 'alert' }, t('docs.unavailable')), h('p', {}, h('button', { class: 'button', type: 'button', onclick: load }, t('retry'))));
    return;
  }
  sign.rest();
  operations = collect();
  draw();
  show();
}

let drawing = null;
find.addEventListener('input', () => {
  clearTimeout(drawing);
  drawing = setTimeout(() => { if (spec) draw(); }, 120);
});
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.target.closest('input, textarea, select')) return;
  event.preventDefault();
  find.focus();
});
let marking = false;
addEventListener('scroll', () => {
  if (marking) return;
  marking = true;
  requestAnimationFrame(() => { marking = false; mark(); });
}, { passive: true });
addEventListener('hashchange', show);
onLang(() => { if (spec) draw(); });
load();
