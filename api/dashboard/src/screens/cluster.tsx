// Who leads, which nodes are there and how they are, which hosts are kept from being called.
import { call } from "../api/calls";
import { loose } from "../api/loose";
import { offers } from "../api/offered";
import type { Schemas } from "../api/types";
import { nowMs } from "../clock";
import { count, duration, plural } from "../format";
import { useLive } from "../live";
import { href, type Route } from "../route";
import { Action } from "../ui/action";
import { Time } from "../ui/now";
import { Card, Facts, Head, ProblemNote, Skeleton } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Table, type Column } from "../ui/table";
import { DatabaseCard, WorkInHand } from "./cluster-work";
import { dueAddress, unfinished } from "./executions";

type Node = Schemas["NodeView"];
type Breaker = Schemas["BreakerView"];

export function ClusterScreen({ route }: { route: Route }) {
  const live = useLive(call("get", "/cluster"));
  const c = live.data;
  return (
    <>
      <Head title="Cluster" note={c ? `${plural(c.nodes.length, "node")}, term ${c.leader.term}` : "…"} />
      <ProblemNote problem={live.problem} />
      {!c && !live.problem && <Skeleton />}
      {c && (
        <>
          <Card class="summary">
            <Facts
              items={[
                ["Leader", c.leader.nodeId ?? "none"],
                ["Term", count(c.leader.term)],
                ["Leads since", <Time at={c.leader.since} />],
                ["Lease renewed", <Time at={c.leader.renewedAt} />],
                ["Ready to send", <a href={dueAddress(nowMs())}>{count(c.backlog.ready)}</a>],
                ["Leased", <a href="#/cluster?part=leases">{count(c.backlog.leased)}</a>],
                ["Late work", <span title="Executions that are sent behind what is due: overdue ones, catch-up and replays">{count(c.backlog.late)}</span>],
                ["Oldest due", c.backlog.oldestDueAt ? <Time at={c.backlog.oldestDueAt} /> : <span class="faint">nothing waits</span>],
              ]}
            />
          </Card>
          <h2 class="section">Nodes</h2>
          <Table label="Nodes" columns={nodeColumns(live.reload)} rows={c.nodes} id={(n) => n.nodeId} />
          <h2 class="section">Circuit breakers</h2>
          {c.breakers.length > 0 ? <Table label="Circuit breakers" columns={BREAKERS} rows={c.breakers} id={(b) => b.host} /> : <p class="card empty">None is open: every host is called.</p>}
          {c.breakersInAll > c.breakers.length && <p class="faint">The first {c.breakers.length} of {c.breakersInAll}.</p>}
          <WorkInHand part={route.query["part"]} />
          <DatabaseCard />
        </>
      )}
    </>
  );
}

function nodeColumns(reload: () => void): Column<Node>[] {
  const columns: Column<Node>[] = [
    { name: "Node", class: "main-cell", cell: (n) => <><b>{n.nodeId}</b><span class="sub">{n.host}, pid {n.pid}, {n.version}</span></> },
    { name: "Role", cell: (n) => (n.draining ? <StateBadge state="paused" text="draining" /> : n.leading ? <StateBadge state="running" text="leader" /> : <StateBadge state="active" text="works" />) },
    { name: "In flight", class: "num", cell: (n) => <a href={unfinished({ node: n.nodeId })}>{count(n.inFlight)}</a> },
    { name: "Waiting", class: "num mid", cell: (n) => <a href={unfinished({ node: n.nodeId })}>{count(n.waiting)}</a> },
    { name: "Clock", class: "num mid", cell: (n) => <span title="How far the node's clock is from the database's">{n.clockOffsetMs < 0 ? "-" : "+"}{duration(Math.abs(n.clockOffsetMs))}</span> },
    { name: "Seen", class: "num mid", cell: (n) => <Time at={n.seenAt} /> },
    { name: "Started", class: "num wide-only", cell: (n) => <Time at={n.startedAt} /> },
  ];
  if (!offers("/nodes/{nodeId}/drain")) return columns;
  return [...columns, { name: "Work", class: "num", cell: (n) => <Drain node={n} onDone={reload} /> }];
}

function Drain({ node, onDone }: { node: Node; onDone: () => void }) {
  const verb = node.draining ? "undrain" : "drain";
  return (
    <Action
      small needs="admin" label={node.draining ? "Undrain" : "Drain"} title={`${node.draining ? "Undrain" : "Drain"} ${node.nodeId}`}
      call={loose("post", `/nodes/${encodeURIComponent(node.nodeId)}/${verb}`)} done={() => `${node.nodeId} was asked to ${verb}.`} onDone={onDone}
    >
      <p>{node.draining ? "The node claims work again." : "The node gives its work away and claims no more; it keeps running. If it leads, another node takes over."}</p>
    </Action>
  );
}

const BREAKERS: readonly Column<Breaker>[] = [
  { name: "Host", class: "main-cell", cell: (b) => <a href={href(["jobs"], { host: b.host })}>{b.host}</a> },
  { name: "State", cell: (b) => <StateBadge state={b.state} /> },
  { name: "Reason", class: "result mid", cell: (b) => <span class="clip" title={b.reason}>{b.reason}</span> },
  { name: "Opened", class: "num", cell: (b) => <Time at={b.openedAt} /> },
  { name: "Next probe", class: "num", cell: (b) => <Time at={b.triedAgainAt} /> },
  { name: "In a row", class: "num mid", cell: (b) => count(b.opens) },
];
