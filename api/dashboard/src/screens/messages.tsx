// Messages: requests that are sent once. Those that have not ended; one more; a cancellation.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem, type Fault } from "../api/send";
import type { Schemas } from "../api/types";
import { readBody } from "../definition";
import { count, hostOf } from "../format";
import { useLive } from "../live";
import { href, type Route } from "../route";
import { useMay } from "../session";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Time } from "../ui/now";
import { Empty, Field, Head, ProblemNote, Skeleton, Tags } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Pager, Table, type Column } from "../ui/table";
import { toast } from "../ui/toast";
import { Words } from "./editor-fields";

type Message = Schemas["ListedMessage"];

export function MessagesScreen({ route }: { route: Route }) {
  const [open, setOpen] = useState(false);
  const may = useMay("write");
  const list = useLive(call("get", "/messages", { query: { limit: 50, cursor: route.query["cursor"] } }));
  const rows = list.data?.items ?? [];
  const columns = may ? [...COLUMNS, cancelColumn(list.reload)] : COLUMNS;
  return (
    <>
      <Head title="Messages" note="One request each, sent once, now or later. Those that have not ended: what is being sent first, then what waits.">
        {may && <button type="button" class="primary" onClick={() => setOpen(true)}>New message</button>}
      </Head>
      <ProblemNote problem={list.problem} />
      {!list.data && !list.problem && <Skeleton rows={6} />}
      {list.data && rows.length === 0 && <Empty>No message waits. What was sent is among the <a href={href(["executions"])}>executions</a>.</Empty>}
      {rows.length > 0 && <Table label="Messages" columns={columns} rows={rows} id={(m) => m.executionId} />}
      <Pager route={route} nextCursor={list.data?.nextCursor} shown={rows.length} />
      {open && <NewMessage onClose={() => setOpen(false)} onDone={list.reload} />}
    </>
  );
}

const COLUMNS: readonly Column<Message>[] = [
  { name: "Message", class: "main-cell", cell: (m) => <><a class="row-link" href={href(["executions", m.executionId])}>{m.messageId}</a><span class="sub">{m.api ? hostOf(m.api) : ""}</span></> },
  { name: "State", cell: (m) => <StateBadge state={m.state} text={m.waiting ? "waiting" : m.state} /> },
  { name: "Due", class: "num", cell: (m) => <Time at={m.dueAt} /> },
  { name: "Attempts", class: "num mid", cell: (m) => (m.attempt ? `${count(m.attempt)}, last ${m.status ?? m.error ?? "unanswered"}` : "–") },
  { name: "Queue", class: "mid", cell: (m) => m.queue ?? <span class="faint">–</span> },
  { name: "Tags", class: "wide-only", cell: (m) => <Tags tags={m.tags} /> },
];

function cancelColumn(reload: () => void): Column<Message> {
  return {
    name: "Actions", class: "num row-actions",
    cell: (m) => (
      <Action
        small danger label="Cancel" confirm="Cancel the message" title={`Cancel ${m.messageId}`} onDone={reload}
        call={call("delete", "/messages/{messageId}", { path: { messageId: m.messageId } })} done={() => "It was not sent and will not be."}
      >
        <p>It can be cancelled as long as no node holds it for sending.</p>
      </Action>
    ),
  };
}

const MORE = '{"timeoutSeconds": 30, "retry": {"maxAttempts": 5}}';

function NewMessage({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [value, setValue] = useState<Record<string, unknown>>({});
  const [body, setBody] = useState("");
  const [more, setMore] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const extra = more.trim() ? readBody(more) : {};
  const readable = typeof extra === "object" && extra !== null && !Array.isArray(extra);
  const content = Object.fromEntries(Object.entries({ ...value, body: readBody(body) }).filter(([, v]) => v !== undefined && v !== ""));
  const send = call("post", "/messages", { body: { ...content, ...(readable ? extra : {}) } as never });
  const fault = (name: string) => problem?.faults.find((f: Fault) => f.path === name || f.path.startsWith(`${name}.`) || f.path.startsWith(`${name}[`))?.message;
  const line = (name: string, label: string, hint?: string, wide = false) => (
    <Field label={label} hint={hint} fault={fault(name)} wide={wide}>
      <input value={String(value[name] ?? "")} spellcheck={false} onInput={(e) => setValue({ ...value, [name]: e.currentTarget.value })} />
    </Field>
  );
  return (
    <Dialog title="New message" onClose={onClose}>
      <div class="form">
        {line("api", "Target URL", "Gets one POST.", true)}
        {line("delay", "In", "30s, 1h30m; at once if empty")}
        {line("at", "Or at", "2026-12-01T10:00:00Z")}
        {line("dedupId", "Dedup id", "All messages with it within 24 h are one.")}
        {line("queue", "Queue")}
        <Field label="Tags" hint="Separated by commas." fault={fault("tags")}><Words value={(value["tags"] as string[] | undefined) ?? []} onChange={(tags) => setValue({ ...value, tags: tags.length ? tags : undefined })} /></Field>
        <Field label="Body" hint="JSON, or any text." fault={fault("body")} wide><textarea rows={3} spellcheck={false} value={body} onInput={(e) => setBody(e.currentTarget.value)} /></Field>
        <Field label="Other fields, as JSON" hint={MORE} fault={readable ? undefined : "This is not a JSON object yet."} wide><textarea rows={2} spellcheck={false} value={more} onInput={(e) => setMore(e.currentTarget.value)} /></Field>
      </div>
      <ProblemNote problem={problem} />
      <CurlNote call={send} />
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>Cancel</button>
        <SendButton
          call={send} label="Send" disabled={!value["api"] || !readable} onProblem={setProblem}
          onDone={(m) => (toast("The message is accepted.", href(["executions", m?.executionId ?? ""])), onDone(), onClose())}
        />
      </div>
    </Dialog>
  );
}
