// Clients of Connect and gRPC-Web that call `library.v1.Library` at the address given, by each transport there is. Fails loudly.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

const [, , baseUrl, descriptors] = process.argv;
const files = fromBinary(FileDescriptorSetSchema, readFileSync(descriptors));
const service = createFileRegistry(files).getService("library.v1.Library");

async function* messages(...all) {
  yield* all;
}

async function gathered(stream) {
  const all = [];
  for await (const message of stream) all.push(message);
  return all;
}

async function check(name, transport, { duplex, slow = true }) {
  const client = createClient(service, transport);
  let seen;
  const options = { headers: { "x-custom": "1" }, onHeader: (fields) => (seen = fields.get("x-seen-custom")) };
  const book = await client.getBook({ name: "shelves/a/books/b" }, options);
  assert.equal(book.title, "Walden", name);
  assert.equal(book.pages, 352n, name);
  assert.equal(seen, "1", name);
  const gone = await client.getBook({ name: "shelves/a/books/gone" }).catch((error) => error);
  assert.ok(gone instanceof ConnectError, `${name}: ${gone}`);
  assert.equal(gone.code, Code.NotFound, name);
  assert.equal(gone.rawMessage, "no \u201csuch\u201d book: 100%", name);
  assert.equal(gone.metadata.get("x-why"), "burnt", name);
  if (slow) {
    const late = await client.getBook({ name: "shelves/a/books/slow" }, { timeoutMs: 200 }).catch((e) => e);
    assert.equal(late.code, Code.DeadlineExceeded, `${name}: ${late}`);
  }
  const books = await gathered(client.listBooks({ parent: "shelves/a", count: 3 }));
  assert.equal(books.length, 3, name);
  const broken = await gathered(client.listBooks({ parent: "shelves/broken", count: 2 })).catch((e) => e);
  assert.equal(broken.code, Code.DataLoss, `${name}: ${broken}`);
  const sum = await client.addBooks(messages({ pages: 1n }, { pages: 2n }));
  assert.equal(sum.pages, 3n, name);
  if (duplex) {
    const heard = await gathered(client.talk(messages({ text: "a" }, { text: "b" })));
    assert.deepEqual(heard.map((note) => note.text), ["you said a", "you said b", "goodbye"], name);
  }
  const large = await client.ping({ text: "x".repeat(5000) });
  assert.equal(large.text.length, 5000, name);
}

const gzip = { acceptCompression: [compressionGzip], sendCompression: compressionGzip, compressMinBytes: 100 };
for (const httpVersion of ["1.1", "2"]) {
  const duplex = httpVersion === "2";
  for (const useBinaryFormat of [true, false]) {
    const how = { baseUrl, httpVersion, useBinaryFormat };
    await check(`connect ${httpVersion} ${useBinaryFormat}`, createConnectTransport(how), { duplex });
    await check("connect get", createConnectTransport({ ...how, useHttpGet: true }), { duplex });
    await check("connect gzip", createConnectTransport({ ...how, ...gzip }), { duplex });
  }
  await check(`web ${httpVersion}`, createGrpcWebTransport({ baseUrl, httpVersion }), { duplex });
  await check("web gzip", createGrpcWebTransport({ baseUrl, httpVersion, ...gzip }), { duplex });
}
await check("grpc", createGrpcTransport({ baseUrl }), { duplex: true });
console.log("ok");
process.exit(0);
