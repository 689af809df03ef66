// BullMQ as a peer of Horae: `worker` POSTs with undici, `fill` adds jobs, `tick` adds what is due each second.
//
//   node bullmq.mjs worker REDIS_PORT URL CONCURRENCY       prints one line of JSON when its input ends
//   node bullmq.mjs fill REDIS_PORT COUNT                   adds COUNT jobs that are due at once
//   node bullmq.mjs tick REDIS_PORT RATE SECONDS START_MS   adds RATE jobs for each second from START_MS on, `delay` long
import { Queue, Worker } from "bullmq";
import { Pool } from "undici";

const [mode, redisPort, ...rest] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(redisPort), maxRetriesPerRequest: null };
const BULK = 1000;
const AHEAD_MS = 5_000;
// What is done leaves nothing behind: the fastest that BullMQ offers.
const ONCE = { removeOnComplete: true, removeOnFail: true };

async function work(url, concurrency) {
  const target = new URL(url);
  const pool = new Pool(target.origin, { connections: concurrency, pipelining: 1 });
  const lateness = [];
  const worker = new Worker(
    "posts",
    async (job) => {
      if (job.data.due) lateness.push(Date.now() - job.data.due);
      const answer = await pool.request({
        path: `${target.pathname}/${job.id}`,
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": String(job.id) },
        body: JSON.stringify(job.data),
      });
      await answer.body.dump();
      if (answer.statusCode >= 300) throw new Error(`status ${answer.statusCode}`);
    },
    { connection, concurrency },
  );
  await worker.waitUntilReady();
  console.log("ready");
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.on("end", resolve));
  await worker.close();
  await pool.close();
  // All of it is written before the process exits: a pipe takes 64 KiB at once.
  await new Promise((resolve) => process.stdout.write(`${JSON.stringify({ lateness })}\n`, resolve));
}

async function fill(count) {
  const queue = new Queue("posts", { connection });
  for (let n = 0; n < count; n += BULK) {
    const size = Math.min(BULK, count - n);
    await queue.addBulk(Array.from({ length: size }, (_, i) => ({ name: "post", data: { n: n + i }, opts: ONCE })));
  }
  await queue.close();
}

async function tick(rate, seconds, startMs) {
  const queue = new Queue("posts", { connection });
  for (let second = 0; second < seconds; second += 1) {
    const due = startMs + second * 1000;
    const wait = due - AHEAD_MS - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    for (let n = 0; n < rate; n += BULK) {
      const delay = Math.max(0, due - Date.now());
      const size = Math.min(BULK, rate - n);
      await queue.addBulk(
        Array.from({ length: size }, (_, i) => ({ name: "post", data: { n: n + i, due }, opts: { ...ONCE, delay } })),
      );
    }
  }
  await queue.close();
}

if (mode === "worker") await work(rest[0], Number(rest[1]));
else if (mode === "fill") await fill(Number(rest[0]));
else await tick(Number(rest[0]), Number(rest[1]), Number(rest[2]));
process.exit(0);
