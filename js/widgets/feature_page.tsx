import { useEffect } from "preact/hooks";
import type { FeatureAt } from "../bus";
import { SheetBody, SheetFoot, SheetVerbs, sheetTitle, sheetWhat, useSheet } from "../components/feature_sheet";
import { Frame, type Status } from "../components/frame";
import { mount, type Scene } from "../components/mount";
import type { View } from "../sync";

const HEADING = "Feature";

function FeaturePage({ sync, theme, bus, ended, root }: Scene) {
  const sheet = useSheet(sync, bus);
  const status = sync.trait<Status>("status").value;
  const opened = sync.trait<number>("opened").value;
  const view = sheet.view.value;
  useEffect(() => {
    if (opened > 0) bringUp(root);
  }, [opened]);
  useEffect(() => {
    bus?.hear("feature", (at: FeatureAt) => isHere(sheet.view.value, at) && bringUp(root), ended);
  }, []);
  if (!view) {
    return (
      <Frame title={HEADING} what="" life={sync.life.value} status={status}>
        <p class="iv-empty">{status.state === "loading" ? "reading…" : "no feature is shown: iv.FeaturePage(dashboard, 17)"}</p>
      </Frame>
    );
  }
  const asked = sheet.asked.value;
  const shown: Status = sheet.told.value.message
    ? sheet.told.value
    : asked !== null && asked !== view.feature
      ? { state: "loading", message: `opening feature ${asked}…` }
      : status;
  return (
    <Frame
      title={sheetTitle(view)}
      what={sheetWhat(view)}
      life={sync.life.value}
      status={shown}
      verbs={<SheetVerbs sync={sync} sheet={sheet} />}
      foot={<SheetFoot view={view} />}
    >
      <SheetBody sync={sync} theme={theme} sheet={sheet} />
    </Frame>
  );
}

function isHere(view: FeatureAt | null, at: FeatureAt): boolean {
  return view !== null && view.feature === at.feature && view.dictionary === at.dictionary && view.site === at.site && view.model === at.model;
}

function bringUp(root: HTMLElement): boolean {
  root.scrollIntoView?.({ block: "nearest" });
  root.tabIndex = -1;
  root.focus({ preventScroll: true });
  return true;
}

export default {
  render: (view: View) => mount(view, "feature", HEADING, FeaturePage),
};
