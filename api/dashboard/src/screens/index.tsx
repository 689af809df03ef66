// Every screen, its address and its place in the navigation.
import type { ComponentType } from "preact";
import { href, type Route } from "../route";
import { ClusterScreen } from "./cluster";
import { EditorScreen } from "./editor";
import { ExecutionScreen } from "./execution";
import { ExecutionsScreen } from "./executions";
import { FailedScreen } from "./failed";
import { JobScreen } from "./job";
import { JobsScreen } from "./jobs";
import { MessagesScreen } from "./messages";
import { NowScreen } from "./now";
import { ProofScreen } from "./proof";
import { ResourceByAddress, RESOURCES } from "./resources";
import { TimeScreen } from "./time";
import { offers } from "../api/offered";

export interface Screen {
  /** The item of the navigation that is marked. */
  nav: string;
  title: (route: Route) => string;
  View: ComponentType<{ route: Route }>;
}

interface Item {
  nav: string;
  /** What it takes to see it. */
  reads: "read" | "admin";
  label: string;
  address: string;
}

const item = (nav: string, label: string, reads: Item["reads"] = "read"): Item => ({ nav, label, reads, address: href(nav ? [nav] : []) });

/** Those of the resources that the API offers. */
function resources(...names: string[]): Item[] {
  return names.filter((n) => offers(RESOURCES[n]?.path ?? "")).map((n) => item(n, RESOURCES[n]?.title ?? n, RESOURCES[n]?.reads));
}

export const NAVIGATION: readonly { name: string; items: readonly Item[] }[] = [
  { name: "", items: [item("", "Now"), ...(offers("/timeline") ? [item("time", "Time")] : [])] },
  { name: "Work", items: [item("jobs", "Jobs"), item("executions", "Executions"), item("messages", "Messages"), item("failed", "Failed")] },
  { name: "Cluster", items: [item("cluster", "Nodes"), ...(offers("/verifications") ? [item("proof", "Proof", "admin")] : []), ...resources("audit", "keys")] },
  { name: "Set up", items: resources("queues", "calendars", "windows", "channels") },
];

const SCREENS: Record<string, Screen> = {
  "": { nav: "", title: () => "Now", View: NowScreen },
  now: { nav: "", title: () => "Now", View: NowScreen },
  time: { nav: "time", title: () => "Time", View: TimeScreen },
  new: { nav: "jobs", title: () => "New job", View: EditorScreen },
  proof: { nav: "proof", title: () => "Proof", View: ProofScreen },
  cluster: { nav: "cluster", title: () => "Cluster", View: ClusterScreen },
  jobs: { nav: "jobs", title: () => "Jobs", View: JobsScreen },
  executions: { nav: "executions", title: () => "Executions", View: ExecutionsScreen },
  messages: { nav: "messages", title: () => "Messages", View: MessagesScreen },
  failed: { nav: "failed", title: () => "Failed", View: FailedScreen },
};
const JOB: Screen = { nav: "jobs", title: (route) => route.path[1] ?? "Job", View: JobScreen };
const EDIT: Screen = { nav: "jobs", title: (route) => `Edit ${route.path[1]}`, View: EditorScreen };
const EXECUTION: Screen = { nav: "executions", title: (route) => route.path[1] ?? "Execution", View: ExecutionScreen };
const MISSING: Screen = { nav: "missing", title: () => "Not found", View: Missing };

export function screenOf(route: Route): Screen {
  const [first = "", second] = route.path;
  if (first === "jobs" && second && route.path[2] === "edit") return EDIT;
  if (first === "jobs" && second && route.path.length === 2) return JOB;
  if (first === "executions" && second && route.path.length === 2) return EXECUTION;
  if (route.path.length === 1 && Object.hasOwn(RESOURCES, first)) return { nav: first, title: () => RESOURCES[first]?.title ?? first, View: ResourceByAddress };
  return (route.path.length <= 1 && Object.hasOwn(SCREENS, first) && SCREENS[first]) || MISSING;
}

function Missing() {
  return (
    <>
      <h1 tabIndex={-1}>There is no such screen</h1>
      <p class="note">The address may be of another version. <a href="#/">Go to the first screen</a></p>
    </>
  );
}
