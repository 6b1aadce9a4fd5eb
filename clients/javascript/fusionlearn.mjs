// A fusionlearn client for devices without Python: one file, no dependencies, Node 18 or newer.
//
//   node fusionlearn.mjs keygen KEY.pem
//   node fusionlearn.mjs summarize TASK TABLE.csv -o UPDATE --key KEY.pem
//   node fusionlearn.mjs join URL --code CODE | --certificate FILE --data TABLE.csv --key KEY.pem [--task DIGEST] [--project NAME] --yes
//   node fusionlearn.mjs fetch URL -o MODEL --key KEY.pem --task DIGEST [--project NAME]
//   node fusionlearn.mjs predict MODEL TABLE.csv
//
// It verifies a task, encodes a table (encoder `table`), sums it (method `ridge`), writes and signs an update, sends it,
// verifies receipt and model, and predicts. The format is in spec/FORMAT.md, the sums in docs/explanation.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, verify } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const MAX_HEADER = 2 ** 20, MAX_ARRAYS = 4096, MOST_BITS = 50, HEX64 = /^[0-9a-f]{64}$/;
const BYTES = { BOOL: 1, U8: 1, I8: 1, I16: 2, U16: 2, F16: 2, I32: 4, U32: 4, F32: 4, I64: 8, U64: 8, F64: 8 };
const MISSING = new Set(["", "?", "na", "n/a", "nan", "none", "null"]);

export class Refused extends Error {}
const refuse = (sentence) => { throw new Refused(sentence); };
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

// --- files: safetensors with a signed manifest ------------------------------------------------------------------------

// RFC 8785: JSON.stringify is what it is defined by, besides the order of keys (UTF-16, as sort() has it).
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

function manifest(metadata, arrays) {
  const listed = {};
  for (const [name, { dtype, shape, bytes }] of Object.entries(arrays)) listed[name] = { dtype, sha256: sha256(bytes), shape };
  const { signature, ...unsigned } = metadata;
  return Buffer.from(canonical({ arrays: listed, metadata: unsigned }));
}

// A file's header entries and arrays, every cap checked before anything is parsed; its signature is verified.
export function read(bytes, kind) {
  if (bytes.length < 10) refuse("the file is too short to be one of ours.");
  const length = Number(bytes.readBigUInt64LE(0));
  if (length > MAX_HEADER || 8 + length > bytes.length) refuse("the file's header is longer than allowed, or cut.");
  let header;
  try { header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8")); } catch { refuse("the file's header is no JSON."); }
  const { __metadata__: metadata = {}, ...listed } = header;
  if (Object.keys(listed).length > MAX_ARRAYS) refuse("the file has too many arrays.");
  if (!Object.values(metadata).every((value) => typeof value === "string")) refuse("the header's entries are not all text.");
  const arrays = {};
  let end = 0;
  for (const [name, entry] of Object.entries(listed).sort((a, b) => a[1].data_offsets[0] - b[1].data_offsets[0])) {
    const [from, to] = entry.data_offsets, count = entry.shape.reduce((a, b) => a * b, 1);
    if (!(entry.dtype in BYTES) || from !== end || to - from !== count * BYTES[entry.dtype]) refuse(`array '${name}' does not fit its place.`);
    end = to;
    arrays[name] = { dtype: entry.dtype, shape: entry.shape, bytes: bytes.subarray(8 + length + from, 8 + length + to) };
  }
  if (8 + length + end !== bytes.length) refuse("the file was cut or padded.");
  for (const [name, array] of Object.entries(arrays)) {
    if (array.dtype === "F64" && !numbers(array).every(Number.isFinite)) refuse(`array '${name}' holds NaN or infinity.`);
  }
  if (metadata.format !== "fusionlearn/1" || metadata.kind !== kind) refuse(`the file is no ${kind} of format fusionlearn/1.`);
  const listedManifest = manifest(metadata, arrays);
  if (metadata.signer !== undefined && !signedBy(metadata.signer, metadata.signature ?? "", listedManifest)) {
    refuse("the signature is wrong: the file was altered after it was signed.");
  }
  return { metadata: whole(metadata, arrays), arrays, digest: sha256(listedManifest), signer: metadata.signer ?? "" };
}

// Long header entries travel as uint8 arrays called header.NAME.
function whole(metadata, arrays) {
  const all = { ...metadata };
  for (const [name, array] of Object.entries(arrays)) {
    if (name.startsWith("header.")) all[name.slice(7)] = array.bytes.toString("utf8");
  }
  return all;
}

export function write(metadata, arrays, key) {
  const header = { ...metadata, signer: publicHex(key) };
  header.signature = sign(null, manifest(header, arrays), key).toString("hex");
  const listed = { __metadata__: header };
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(arrays)) {
    listed[name] = { dtype, shape, data_offsets: [offset, offset += bytes.length] };
  }
  let text = Buffer.from(JSON.stringify(listed));
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return { bytes: Buffer.concat([size, text, ...Object.values(arrays).map((array) => array.bytes)]), digest: sha256(manifest(header, arrays)) };
}

export const publicHex = (key) => Buffer.from(createPublicKey(key).export({ format: "jwk" }).x, "base64url").toString("hex");

export function signedBy(signer, signature, message) {
  if (!HEX64.test(signer) || !/^[0-9a-f]{128}$/.test(signature)) return false;
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(signer, "hex").toString("base64url") }, format: "jwk" });
  return verify(null, message, key, Buffer.from(signature, "hex"));
}

function numbers({ bytes }) {
  return Array.from({ length: bytes.length / 8 }, (_, place) => bytes.readDoubleLE(8 * place));
}

// --- the table: what `table` makes of it --------------------------------------------------------------------------------

export function csv(text) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let place = 0; place < text.length; place += 1) {
    const letter = text[place];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[place + 1] === '"') { cell += '"'; place += 1; } else quoted = false;
    } else if (letter === '"') quoted = true;
    else if (letter === ",") { row.push(cell); cell = ""; }
    else if (letter === "\n") { row.push(cell); rows.push(row); row = []; cell = ""; }
    else if (letter !== "\r") cell += letter;
  }
  if (cell || row.length) { row.push(cell); rows.push(row); }
  const [names = [], ...records] = rows.filter((found) => found.length > 1 || found[0] !== "");
  return { names: names.map((name) => name.trim().replace(/^\uFEFF/, "")), records };
}

// '1', '1.0' and ' 1' are one value.
const value = (text) => {
  const trimmed = text.trim(), number = trimmed === "" ? NaN : Number(trimmed);
  return Number.isInteger(number) && Math.abs(number) < 2 ** 53 ? String(number) : Number.isFinite(number) ? String(number) : trimmed;
};
const isMissing = (text) => MISSING.has(text.trim().toLowerCase());

// The task's question: columns, classes, and the bounds that size the fixed point.
export function question(task) {
  const schema = JSON.parse(task.metadata.schema), encoder = JSON.parse(task.metadata.encoder), method = JSON.parse(task.metadata.method);
  if (encoder.length !== 1 || encoder[0].name !== "table") refuse("this client knows the encoder 'table' only.");
  if (method.name !== "ridge" || method.settings.class_weights !== "none" || (method.settings.word ?? 64) !== 64) refuse("this client knows the method 'ridge' without class weights, in 64 bits, only.");
  if (schema.label.kind !== "class") refuse("this client knows tasks of classes only.");
  const bounds = [];
  for (const column of schema.columns) {
    const rule = column.missing ?? schema.missing;
    if (column.kind === "number") {
      column.center ??= (column.low + column.high) / 2;
      column.scale ??= (column.high - column.low) / 2;
      bounds.push(Math.max(Math.abs(column.low - column.center), Math.abs(column.high - column.center)) / column.scale);
    } else if (column.kind === "category") for (const _ of column.values.slice(1)) bounds.push(1);
    else refuse(`this client knows columns of numbers and categories, not '${column.kind}'.`);
    column.rule = rule;
    column.marked = rule === "indicator" || (rule === "center" && column.kind === "category");
    if (column.marked) bounds.push(1);
  }
  const codes = new Map();
  schema.label.groups.forEach((group, code) => group.values.forEach((text) => codes.set(text, code)));
  return { schema, codes, classes: schema.label.groups.map((group) => group.name), top: Math.max(1, ...bounds), width: bounds.length, maxRecords: Number(task.metadata.max_records) };
}

// Encoded rows and classes. Faults name row and column, never a cell.
export function encode(asked, table, withLabel = true) {
  const { schema } = asked, place = new Map(table.names.map((name, index) => [name, index])), rows = [], classes = [];
  for (const column of [...schema.columns.map((found) => found.name), ...(withLabel ? [schema.label.column] : [])]) {
    if (!place.has(column)) refuse(`column '${column}' is not in the data.`);
  }
  table.records.forEach((record, index) => {
    const row = [], fault = (column, kind) => refuse(`column '${column}': ${kind} in row ${index + 1}.`);
    let kept = true;
    const absent = (column, rule) => { if (rule === "drop") kept = false; else if (rule === "refuse") fault(column, "a value is missing"); };
    for (const column of schema.columns) {
      const cell = record[place.get(column.name)] ?? "", missing = isMissing(cell);
      if (missing) absent(column.name, column.rule);
      if (column.kind === "number") {
        let number = missing ? NaN : Number(cell.trim());
        if (!missing && Number.isNaN(number)) fault(column.name, "text where a number is expected");
        if (!missing && !Number.isFinite(number)) fault(column.name, "a number is not finite");
        if (number < column.low || number > column.high) {
          if (schema.out_of_range !== "clip") fault(column.name, "a value outside its range");
          number = Math.min(column.high, Math.max(column.low, number));
        }
        row.push(missing ? 0 : (number - column.center) / column.scale);
      } else {
        const code = missing ? -1 : column.values.indexOf(value(cell));
        if (!missing && code < 0) fault(column.name, "a value that is not among the task's");
        for (let level = 1; level < column.values.length; level += 1) row.push(code === level ? 1 : 0);
      }
      if (column.marked) row.push(missing ? 1 : 0);
    }
    if (withLabel) {
      const cell = record[place.get(schema.label.column)] ?? "", missing = isMissing(cell);
      if (missing) absent(schema.label.column, schema.missing === "drop" ? "drop" : "refuse");
      const code = missing ? -1 : asked.codes.get(value(cell));
      if (code === undefined) fault(schema.label.column, "a value that belongs to no class");
      if (kept) classes.push(code);
    }
    if (kept) rows.push(row);
  });
  if (!rows.length) refuse("the table holds no complete rows.");
  return { rows, classes };
}

// --- the sums: XᵀX, XᵀY, Σy² and n, in fixed point ------------------------------------------------------------------------

// A product and a sum without loss (Dekker, Knuth), so that a sum is right to twice the digits before it is rounded.
const SPLIT = 2 ** 27 + 1;
function product(a, b) {
  const high = a * b, p = SPLIT * a, q = SPLIT * b, ah = p - (p - a), bh = q - (q - b), al = a - ah, bl = b - bh;
  return [high, al * bl - (high - ah * bh - al * bh - ah * bl)];
}
function plus([high, low], [otherHigh, otherLow]) {
  const sum = high + otherHigh, back = sum - high, rest = high - (sum - back) + (otherHigh - back) + low + otherLow, result = sum + rest;
  return [result, rest - (result - sum)];
}
// The nearest integer to (high + low)·2^bits, ties to even, as numpy's rint has it.
function grid([high, low], bits) {
  const scaled = (high + low) * 2 ** bits, floor = Math.floor(scaled), part = (high * 2 ** bits - floor) + low * 2 ** bits;
  const up = part > 0.5 || (part === 0.5 && Math.abs(floor % 2) === 1);
  return BigInt(floor) + (up ? 1n : 0n);
}

const bitsFor = (records, entry) => Math.min(MOST_BITS, 62 - Math.ceil(Math.log2(records * Math.max(entry, 2 ** -20))));
const blockRows = (width) => Math.min(65536, Math.max(256, 2 ** Math.trunc(Math.log2(2 ** 22 / Math.max(width, 1)))));

function int64(values, shape) {
  const bytes = Buffer.alloc(8 * values.length);
  values.forEach((number, place) => bytes.writeBigInt64LE(number, 8 * place));
  return { dtype: "I64", shape, bytes };
}

export function summarize(asked, { rows, classes }) {
  const width = asked.width + 1, count = asked.classes.length, length = blockRows(width);
  const gramBits = bitsFor(asked.maxRecords, asked.top ** 2), momentBits = bitsFor(asked.maxRecords, asked.top), squareBits = bitsFor(asked.maxRecords, 1);
  const gram = Array(width * (width + 1) / 2).fill(0n), moment = Array(width * count).fill(0n), square = Array(count).fill(0n);
  for (let first = 0; first < rows.length; first += length) { // rounded once a block, at public places
    const block = rows.slice(first, first + length).map((row) => [1, ...row]), labels = classes.slice(first, first + length);
    let place = 0;
    for (let i = 0; i < width; i += 1) for (let j = i; j < width; j += 1, place += 1) {
      let sum = [0, 0];
      for (const row of block) if (row[i] !== 0 && row[j] !== 0) sum = plus(sum, product(row[i], row[j]));
      gram[place] += grid(sum, gramBits);
    }
    for (let i = 0; i < width; i += 1) for (let c = 0; c < count; c += 1) {
      let sum = [0, 0];
      block.forEach((row, index) => { if (labels[index] === c) sum = plus(sum, [row[i], 0]); });
      moment[i * count + c] += grid(sum, momentBits);
    }
    for (let c = 0; c < count; c += 1) square[c] += grid([labels.filter((label) => label === c).length, 0], squareBits);
  }
  return { count: int64([BigInt(rows.length)], []), gram: int64(gram, [gram.length]), moment: int64(moment, [width, count]), square: int64(square, [count]) };
}

export function answer(task, table, key) {
  const asked = question(task);
  const arrays = summarize(asked, encode(asked, table));
  return write({ format: "fusionlearn/1", guarantee: '{"mode":"none"}', kind: "update", task: task.digest }, arrays, key);
}

// --- predicting ---------------------------------------------------------------------------------------------------------

// The nearest probabilities: shift all scores alike, cut at 0, until they sum to 1.
function simplex(scores) {
  const sorted = [...scores].sort((a, b) => b - a);
  let sum = 0, shift = 0;
  sorted.forEach((score, place) => { sum += score; const tried = (sum - 1) / (place + 1); if (score > tried) shift = tried; });
  return scores.map((score) => Math.max(score - shift, 0));
}

export function predict(model, table) {
  const asked = question(model), count = asked.classes.length;
  const weights = numbers(model.arrays.weights), bias = numbers(model.arrays.bias);
  return encode(asked, table, false).rows.map((row) => simplex(bias.map((start, c) => row.reduce((sum, cell, i) => sum + cell * weights[i * count + c], start))));
}

// --- the hub: signed requests (RFC 9421), one upload, one receipt --------------------------------------------------------

export async function ask(base, key, method, path, body) {
  const url = new URL(base + path), headers = {}, covered = ["@method", "@authority", "@path", "@query"];
  const values = { "@method": method, "@authority": url.host, "@path": url.pathname, "@query": url.search || "?" };
  const content = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
  if (content !== undefined) {
    headers["content-type"] = Buffer.isBuffer(body) ? "application/octet-stream" : "application/json";
    headers["content-digest"] = values["content-digest"] = `sha-256=:${createHash("sha256").update(content).digest("base64")}:`;
    covered.push("content-digest");
  }
  const created = Math.floor(Date.now() / 1000), nonce = randomBytes(16).toString("hex");
  const parameters = `(${covered.map((name) => `"${name}"`).join(" ")});created=${created};nonce="${nonce}";keyid="${publicHex(key)}";alg="ed25519";tag="fusionlearn"`;
  const signed = [...covered.map((name) => `"${name}": ${values[name]}`), `"@signature-params": ${parameters}`].join("\n");
  headers["signature-input"] = `sig1=${parameters}`;
  headers.signature = `sig1=:${sign(null, Buffer.from(signed), key).toString("base64")}:`;
  const response = await fetch(url, { method, headers, body: content });
  const answered = Buffer.from(await response.arrayBuffer());
  if (!response.ok) {
    let told = {};
    try { told = JSON.parse(answered.toString("utf8")); } catch { /* not a hub's words */ }
    refuse(`the hub answered ${response.status}: ${told.error ?? "no reason"}`);
  }
  return answered;
}

const json = async (...request) => JSON.parse((await ask(...request)).toString("utf8"));

export async function join(url, key, { code, certificate, data, task: wanted = "", project, name = "", agreed }) {
  const hub = (await json(url, key, "GET", "/v1/hub")).hub;
  if (certificate) certificate = JSON.parse(readFileSync(certificate, "utf8")); // a manufacturer's word for this key
  if (code || certificate) project = (await json(url, key, "POST", "/v1/enrol", certificate ? { certificate, name } : { code, name })).project;
  const tasks = (await json(url, key, "GET", `/v1/projects/${project}/tasks`)).filter((found) => found.task.startsWith(wanted) && (wanted || found.state === "open"));
  if (tasks.length !== 1) refuse(`${tasks.length} tasks are meant: choose one with --task.`);
  const path = `/v1/projects/${project}/tasks/${tasks[0].task}`;
  const task = read(await ask(url, key, "GET", path), "task");
  if (task.digest !== tasks[0].task || !task.signer) refuse("the task that came is not the one that was asked for, or not signed.");
  const { bytes, digest } = answer(task, csv(readFileSync(data, "utf8")), key);
  if (!agreed(task, bytes, digest)) refuse("not agreed, so nothing was sent.");
  const told = await json(url, key, "PUT", `${path}/updates/${digest}`, bytes), receipt = told.receipt;
  const right = receipt.hub === hub && receipt.update === digest && receipt.task === task.digest && receipt.sha256 === sha256(bytes);
  if (!right || !signedBy(hub, told.signature, Buffer.from(canonical(receipt)))) refuse("the hub's receipt is not for what was sent.");
  return { project, task: task.digest, update: digest, bytes, receipt: told };
}

export async function fetchModel(url, key, { project = "default", task }) {
  const hub = (await json(url, key, "GET", "/v1/hub")).hub, path = `/v1/projects/${project}/tasks/${task}`;
  const owner = read(await ask(url, key, "GET", path), "task").signer, bytes = await ask(url, key, "GET", `${path}/models/latest`);
  const model = read(bytes, "model");
  if (model.metadata.task !== task || ![hub, owner].includes(model.signer)) refuse("the model is not this task's, or not by the hub or the owner.");
  return bytes;
}

// --- the command -----------------------------------------------------------------------------------------------------------

function put(path, bytes, mode = 0o644) { // whole or not at all
  writeFileSync(`${path}.part`, bytes, { mode });
  renameSync(`${path}.part`, path);
}

async function main([verb, ...rest]) {
  const given = {}, words = [];
  for (let place = 0; place < rest.length; place += 1) {
    if (rest[place] === "--yes") given.yes = true;
    else if (rest[place].startsWith("-")) given[rest[place].replace(/^-+/, "")] = rest[place += 1];
    else words.push(rest[place]);
  }
  if (verb === "keygen") {
    if (existsSync(words[0])) refuse(`${words[0]} is there already.`);
    put(words[0], generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }), 0o600);
    return publicHex(createPrivateKey(readFileSync(words[0])));
  }
  const key = given.key ? createPrivateKey(readFileSync(given.key)) : undefined;
  if (verb === "summarize") {
    const { bytes, digest } = answer(read(readFileSync(words[0]), "task"), csv(readFileSync(words[1], "utf8")), key);
    put(given.o, bytes);
    return digest;
  }
  if (verb === "join") {
    const agreed = (task, bytes, digest) => {
      console.error(`About to leave: ${bytes.length} bytes, digest ${digest.slice(0, 16)}…, task '${task.metadata.name}' by ${task.signer.slice(0, 16)}.`);
      return given.yes === true;
    };
    const done = await join(words[0], key, { ...given, agreed });
    return JSON.stringify({ project: done.project, task: done.task, update: done.update, receipt: done.receipt });
  }
  if (verb === "fetch") { put(given.o, await fetchModel(words[0], key, given)); return given.o; }
  if (verb === "predict") {
    const model = read(readFileSync(words[0]), "model"), { classes } = question(model);
    const lines = predict(model, csv(readFileSync(words[1], "utf8"))).map((found) => found.join(","));
    return [classes.join(","), ...lines].join("\n");
  }
  return refuse("say keygen, summarize, join, fetch or predict; the first lines of this file show how.");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).then(console.log, (error) => {
    console.error(`Error: ${error instanceof Refused || error.code ? error.message : `internal (${error.name})`}`);
    process.exitCode = 1;
  });
}
