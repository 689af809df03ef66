// One screen for every kind of named thing that can be listed, made, changed and deleted: what differs is data.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { loose } from "../api/loose";
import { Problem, type Fault } from "../api/send";
import { useLive } from "../live";
import type { Route } from "../route";
import { useMay } from "../session";
import { Action, CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { Empty, Field, Head, ProblemNote, Skeleton } from "../ui/parts";
import { Chips, Pager, Table, type Column } from "../ui/table";
import { toast } from "../ui/toast";
import { Words } from "./editor-fields";

export type Item = Record<string, unknown>;

export interface FieldSpec {
  name: string;
  label: string;
  kind: "text" | "number" | "choice" | "words" | "json" | "secret";
  options?: readonly string[];
  hint?: string;
  /** Only while this holds for what is entered. */
  when?: (value: Item) => boolean;
}

export interface ResourceSpec {
  title: string;
  note: string;
  /** What one is called, such as `queue`. */
  one: string;
  path: string;
  needs: "write" | "admin";
  /** What it takes to see the list. */
  reads?: "admin";
  columns: readonly Column<Item>[];
  /** Query parameters of the list that can be filtered by. */
  filters?: readonly string[];
  idOf?: (item: Item) => string;
  fields?: readonly FieldSpec[];
  /** How one is saved: PUT under its name, unless the list takes a POST. */
  saves?: "put" | "post";
  cannotDelete?: boolean;
  deleteWord?: string;
  /** Whether there is still something to delete. */
  deletable?: (item: Item) => boolean;
  more?: (item: Item) => ComponentChildren;
  made?: (answer: Item) => ComponentChildren;
  start?: Item;
}

export function nameOf(item: Item): string {
  return String(item["name"] ?? "");
}

export function ResourceScreen({ spec, route }: { spec: ResourceSpec; route: Route }) {
  const asked = Object.fromEntries((spec.filters ?? []).map((f) => [f, route.query[f]]));
  const list = useLive(loose<{ items: Item[]; nextCursor?: string | null }>("get", spec.path, { query: { ...asked, cursor: route.query["cursor"] } }), 10_000);
  const [editing, setEditing] = useState<Item | null>();
  const may = useMay(spec.needs);
  const items = list.data?.items ?? [];
  const canEdit = may && spec.fields && spec.saves !== "post";
  const columns: Column<Item>[] = [...spec.columns];
  if (may && (canEdit || !spec.cannotDelete || spec.more)) {
    columns.push({
      name: "Actions", class: "num row-actions",
      cell: (item) => (
        <>
          {spec.more?.(item)}
          {canEdit && <button type="button" class="small" onClick={() => setEditing(item)}>Change</button>}
          {!spec.cannotDelete && (spec.deletable?.(item) ?? true) && (
            <Action
              small danger needs={spec.needs} label={spec.deleteWord ?? "Delete"} title={`${spec.deleteWord ?? "Delete"} ${spec.one} ${nameOf(item)}`}
              call={loose("delete", `${spec.path}/${encodeURIComponent(nameOf(item))}`)} done={() => `${nameOf(item)} is gone.`} onDone={list.reload}
            >
              <p>This cannot be taken back.</p>
            </Action>
          )}
        </>
      ),
    });
  }
  return (
    <>
      <Head title={spec.title} note={spec.note}>
        {may && spec.fields && <button type="button" class="primary" onClick={() => setEditing(null)}>New {spec.one}</button>}
      </Head>
      {spec.filters?.some((f) => route.query[f]) && <div class="filters"><Chips route={route} names={spec.filters} /></div>}
      <ProblemNote problem={list.problem} />
      {!list.data && !list.problem && <Skeleton rows={4} />}
      {list.data && items.length === 0 && <Empty>{Object.keys(route.query).length > 0 ? `No ${spec.one} matches.` : `There is no ${spec.one} yet.`}</Empty>}
      {items.length > 0 && <Table label={spec.title} columns={columns} rows={items} id={spec.idOf ?? nameOf} />}
      <Pager route={route} nextCursor={list.data?.nextCursor} shown={items.length} />
      {editing !== undefined && spec.fields && <ItemDialog spec={spec} fields={spec.fields} item={editing} onClose={() => setEditing(undefined)} onDone={list.reload} />}
    </>
  );
}

interface ItemDialogProps {
  spec: ResourceSpec;
  fields: readonly FieldSpec[];
  item: Item | null;
  onClose: () => void;
  onDone: () => void;
}

function ItemDialog({ spec, fields, item, onClose, onDone }: ItemDialogProps) {
  const [name, setName] = useState(item ? nameOf(item) : "");
  const [value, setValue] = useState<Item>(() => (item ? Object.fromEntries(fields.map((f) => [f.name, item[f.name]])) : { ...spec.start }));
  const [problem, setProblem] = useState<Problem>();
  const [made, setMade] = useState<Item>();
  const shown = fields.filter((f) => !f.when || f.when(value));
  const body = Object.fromEntries(shown.map((f) => [f.name, value[f.name]]).filter(([, v]) => v !== undefined && v !== null && v !== ""));
  const save = spec.saves === "post" ? loose<Item>("post", spec.path, { body: { name, ...body } }) : loose<Item>("put", `${spec.path}/${encodeURIComponent(name)}`, { body });
  const done = (answer: Item) => {
    onDone();
    if (spec.made) return setMade(answer);
    toast(`${name} is saved.`);
    onClose();
  };
  return (
    <Dialog title={item ? `Change ${spec.one} ${name}` : `New ${spec.one}`} onClose={onClose}>
      {made ? <div class="dialog-body" role="status">{spec.made?.(made)}</div> : (
        <div class="form">
          <Field label="Name" fault={faultOf(problem?.faults, "name")}>
            <input value={name} disabled={item !== null} spellcheck={false} onInput={(e) => setName(e.currentTarget.value)} />
          </Field>
          {shown.map((f) => <OneField key={f.name} field={f} value={value[f.name]} fault={faultOf(problem?.faults, f.name)} onChange={(v) => setValue({ ...value, [f.name]: v })} />)}
        </div>
      )}
      <ProblemNote problem={problem} />
      {!made && <CurlNote call={save} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{made ? "Close" : "Cancel"}</button>
        {!made && <SendButton call={save} label={item ? "Save" : "Create"} disabled={!name} onDone={done} onProblem={setProblem} />}
      </div>
    </Dialog>
  );
}

function faultOf(faults: readonly Fault[] | undefined, name: string): string | undefined {
  return faults?.find((f) => f.path === name || f.path.startsWith(`${name}.`) || f.path.startsWith(`${name}[`))?.message;
}

function OneField({ field: f, value, fault, onChange }: { field: FieldSpec; value: unknown; fault: string | undefined; onChange: (v: unknown) => void }) {
  const text = value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return (
    <Field label={f.label} hint={f.hint} fault={fault} wide={f.kind === "json"}>
      {f.kind === "choice" ? (
        <select value={text} onChange={(e) => onChange(e.currentTarget.value)}>{f.options?.map((o) => <option key={o} value={o}>{o}</option>)}</select>
      ) : f.kind === "number" ? (
        <input type="number" step="any" value={text} onInput={(e) => onChange(e.currentTarget.value === "" ? undefined : Number(e.currentTarget.value))} />
      ) : f.kind === "words" ? (
        <Words value={(value as string[] | undefined) ?? []} onChange={(words) => onChange(words.length ? words : undefined)} />
      ) : f.kind === "secret" ? (
        <input type="password" autocomplete="new-password" placeholder={typeof value === "object" && value ? "kept as it is stored" : undefined} value={typeof value === "string" ? value : ""} onInput={(e) => onChange(e.currentTarget.value || undefined)} />
      ) : f.kind === "json" ? (
        <textarea rows={4} spellcheck={false} onInput={(e) => onChange(readJson(e.currentTarget.value))}>{text}</textarea>
      ) : (
        <input value={text} spellcheck={false} onInput={(e) => onChange(e.currentTarget.value)} />
      )}
    </Field>
  );
}

function readJson(text: string): unknown {
  try {
    return text.trim() ? (JSON.parse(text) as unknown) : undefined;
  } catch {
    return text;
  }
}
