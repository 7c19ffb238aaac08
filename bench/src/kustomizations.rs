//! Many Kustomizations, all changed by one push, as in Flux's own benchmark.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use crate::{
    Context,
    host::{Host, KUSTOMIZATIONS, SITE_NAME, wait_applied},
    measured::Measured,
};

const OBJECTS: usize = 3;

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let host = Host::up(context)?;
    for (figure, count, rounds) in [("kustomizations-100", 100, 5), ("kustomizations-1000", 1000, 2)] {
        if !context.wants("kustomizations", figure) {
            continue;
        }
        let mut names: Vec<String> = (0..count).map(|number| format!("app-{number}")).collect();
        names.push(SITE_NAME.to_owned());
        list(&host, count)?;
        let (mut times, mut used) = (Vec::new(), f64::MAX);
        for round in 0..=rounds {
            context.say(&format!("  {count} Kustomizations, change {round} of {rounds}"));
            apps(&host, count, round)?;
            let mut watch = host.api.watch(KUSTOMIZATIONS)?;
            let before = host.used()?;
            let pushed = host.push()?;
            let done = wait_applied(&mut watch, &names, &pushed.commit)?;
            // The first makes them.
            if round > 0 {
                times.push(done - pushed.start);
                used = used.min(host.used()? - before);
            }
        }
        let note = format!(
            "{OBJECTS} objects each, one of them changed; with the git push; the least processor time of the daemon {used:.0} ms"
        );
        measured.push(Measured::times(figure, &times, note));
    }
    host.site.lab.down()
}

/// The Kustomizations, part of the host's own folder.
fn list(host: &Host, count: usize) -> Result<()> {
    let mut text = String::new();
    for number in 0..count {
        let _ = write!(
            text,
            "---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: app-{number}, namespace: flux-system}}\n\
             spec:\n  interval: 10m\n  path: ./apps/app-{number}\n  prune: true\n  sourceRef: {{kind: GitRepository, name: {SITE_NAME}}}\n"
        );
    }
    host.write("apps.yaml", &text)
}

/// What they apply.
fn apps(host: &Host, count: usize, round: usize) -> Result<()> {
    for number in 0..count {
        let folder = host.site.lab.layout.site().join(format!("apps/app-{number}"));
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let mut text = String::new();
        for object in 0..OBJECTS {
            let value = if object == 0 { round } else { 0 };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app-{number}-{object}, namespace: bench}}\ndata: {{value: '{value}'}}\n"
            );
        }
        fs::write(folder.join("app.yaml"), text)?;
    }
    Ok(())
}
