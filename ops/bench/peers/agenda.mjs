// Agenda on MongoDB as a peer of Horae: one process with one-off jobs that are all due, POSTed with undici.
//
//   node agenda.mjs MONGODB_URI URL COUNT CONCURRENCY    prints "ready" when the jobs are stored, then works them off
import { MongoBackend } from "@agendajs/mongo-backend";
import { Agenda } from "agenda";
import { Pool } from "undici";

const [address, url, count, concurrency] = process.argv.slice(2);
const target = new URL(url);
const pool = new Pool(target.origin, { connections: Number(concurrency), pipelining: 1 });
const agenda = new Agenda({
  backend: new MongoBackend({ address }),
  processEvery: 100,
  maxConcurrency: Number(concurrency),
  defaultConcurrency: Number(concurrency),
  defaultLockLimit: 0,
  removeOnComplete: true,
});
agenda.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
let left = Number(count);
let finished;
const done = new Promise((resolve) => (finished = resolve));
agenda.define("post", async (job) => {
  const answer = await pool.request({
    path: `${target.pathname}/${job.attrs.data.n}`,
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(job.attrs.data),
  });
  await answer.body.dump();
  left -= 1;
  if (left === 0) finished();
});
await agenda.ready;
for (let n = 0; n < Number(count); n += 100) {
  const size = Math.min(100, Number(count) - n);
  await Promise.all(Array.from({ length: size }, (_, i) => agenda.now("post", { n: n + i })));
}
console.log("ready");
process.stdin.once("data", async () => {
  const began = performance.now();
  await agenda.start();
  await done;
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000 }));
  process.exit(0);
});
