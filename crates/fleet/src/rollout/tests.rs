mod golden;
mod properties;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// What a site makes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It applies it and is healthy.
    Good,
    /// It applies it and fails.
    Fails,
    /// It tries, goes back by itself and refuses it from then on.
    Refuses,
    /// It never gets it applied.
    Hangs,
}

#[derive(Clone, Debug)]
struct SimSite {
    view: SiteView,
    fates: BTreeMap<String, Fate>,
}

/// A fleet that does at once what it is told, and an orchestrator that looks every minute.
struct Sim {
    sites: BTreeMap<String, SimSite>,
    lineage: Lineage,
    now: Now,
    /// What happened, for people.
    log: String,
    /// Everything that was checked while it went on.
    opened: BTreeMap<String, usize>,
    told_at: BTreeMap<(String, String), Duration>,
    succeeded: BTreeSet<(String, String)>,
}

impl Sim {
    fn new(sites: &[(&str, &str)]) -> Self {
        let sites = sites.iter().map(|(name, labels)| {
            let labels = labels.split(',').filter_map(|l| l.split_once('='));
            let view = SiteView {
                name: (*name).into(),
                labels: labels.map(|(k, v)| (k.into(), v.into())).collect(),
                online: true,
                health: Health::Healthy,
                ..SiteView::default()
            };
            (
                (*name).to_owned(),
                SimSite {
                    view,
                    fates: BTreeMap::new(),
                },
            )
        });
        Self {
            sites: sites.collect(),
            lineage: Lineage::default(),
            now: Now {
                wall: "2026-11-20T12:00:00Z".parse().unwrap(),
                steady: Duration::ZERO,
            },
            log: String::new(),
            opened: BTreeMap::new(),
            told_at: BTreeMap::new(),
            succeeded: BTreeSet::new(),
        }
    }

    fn site(&mut self, name: &str) -> &mut SimSite {
        self.sites.get_mut(name).unwrap()
    }

    fn fate(&mut self, name: &str, commit: &str, fate: Fate) {
        self.site(name).fates.insert(commit.into(), fate);
    }

    fn view(&self) -> View {
        self.sites
            .iter()
            .map(|(id, site)| (id.clone(), site.view.clone()))
            .collect()
    }

    fn push(&mut self, commit: &str, rules: &Rules) {
        self.push_same(commit, rules, &[]);
    }

    /// A commit that changes nothing for some sites.
    fn push_same(&mut self, commit: &str, rules: &Rules, same: &[&str]) {
        let same = same.iter().map(|site| (*site).to_owned()).collect();
        assert_eq!(rules.check(), []);
        let view = self.view();
        let old = self
            .lineage
            .push(commit, rules.clone(), &format!("{commit} is newer"), &view, &same);
        let _ = writeln!(
            self.log,
            "{} push {commit}{}",
            self.minute(),
            match old {
                Some(old) => format!(", {} superseded", old.commit),
                None => String::new(),
            }
        );
    }

    fn minute(&self) -> String {
        format!("{:>4}", self.now.steady.as_secs() / 60)
    }

    /// The sites do what they are told.
    fn world(&mut self) {
        for site in self.sites.values_mut().filter(|site| site.view.online) {
            let Some(pin) = site.view.pin.clone() else {
                continue;
            };
            let refused = site.view.quarantined.iter().any(|(commit, _)| *commit == pin);
            match site.fates.get(&pin).copied().unwrap_or(Fate::Good) {
                Fate::Good => {
                    site.view.health = Health::Healthy;
                    site.view.applied = Some(pin);
                }
                Fate::Fails => {
                    site.view.health = Health::Failing;
                    site.view.applied = Some(pin);
                }
                Fate::Refuses if !refused => {
                    site.view
                        .quarantined
                        .push((pin, "its virtual machines did not start".into()));
                }
                Fate::Refuses | Fate::Hangs => {}
            }
        }
    }

    fn look(&mut self) -> usize {
        let view = self.view();
        let steps = self.lineage.step(&view, self.now);
        let count = steps.active.actions.len() + steps.tail.actions.len();
        let newest = self
            .lineage
            .newest()
            .map(|r| r.commit.clone())
            .unwrap_or_default();
        let tail = self
            .lineage
            .tail
            .as_ref()
            .map(|r| r.commit.clone())
            .unwrap_or_default();
        self.carry_out(&newest, &steps.active.actions);
        self.carry_out(&tail, &steps.tail.actions);
        count
    }

    fn carry_out(&mut self, commit: &str, actions: &[Action]) {
        for action in actions {
            let minute = self.minute();
            match action {
                Action::Pin { site, commit } => {
                    let key = (site.clone(), commit.clone());
                    self.told_at.insert(key, self.now.steady);
                    self.site(site).view.pin = Some(commit.clone());
                }
                Action::Open { wave } => {
                    self.opened.insert(commit.into(), wave + 1);
                    let _ = writeln!(self.log, "{minute} {commit}: wave {wave} opens");
                }
                Action::Batch { number, sites } => {
                    let _ = writeln!(self.log, "{minute} {commit}: batch {number}: {}", sites.join(" "));
                }
                Action::Succeed { site } => {
                    self.succeeded.insert((site.clone(), commit.into()));
                    let _ = writeln!(self.log, "{minute} {commit}: {site} is through");
                }
                Action::Fail { site, reason } => {
                    let _ = writeln!(self.log, "{minute} {commit}: {site} failed: {reason}");
                }
                Action::WentBack { site } => {
                    let _ = writeln!(self.log, "{minute} {commit}: {site} went back");
                }
                Action::Enter { phase, reason } => {
                    let why = if reason.is_empty() {
                        String::new()
                    } else {
                        format!(": {reason}")
                    };
                    let _ = writeln!(self.log, "{minute} {commit}: {}{why}", phase.word());
                }
            }
        }
    }

    fn minutes(&mut self, count: u64) {
        for _ in 0..count {
            self.world();
            self.look();
            self.now.steady += MINUTE;
            self.now.wall += SignedDuration::from_mins(1);
        }
    }

    fn newest(&mut self) -> &mut Rollout {
        self.lineage
            .active
            .as_mut()
            .or(self.lineage.tail.as_mut())
            .unwrap()
    }

    fn command(&mut self, command: Command) {
        let actions = self.newest().command(command).unwrap();
        let commit = self.newest().commit.clone();
        self.carry_out(&commit, &actions);
    }

    fn pins(&self) -> Vec<(&str, &str)> {
        let pin = |site: &'_ SimSite| {
            site.view
                .pin
                .as_deref()
                .map_or("", |p| Box::leak(p.to_owned().into_boxed_str()))
        };
        self.sites
            .iter()
            .map(|(id, site)| (id.as_str(), pin(site)))
            .collect()
    }
}

fn rules(json: &str) -> Rules {
    serde_json::from_str(json).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
