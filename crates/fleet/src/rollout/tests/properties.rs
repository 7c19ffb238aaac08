//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

/// What goes on in a minute.
#[derive(Clone, Debug)]
enum Event {
    Goes(usize),
    Comes(usize),
    /// A commit, and for which sites it changes something.
    Push(usize, u16),
    Approve,
    Halt,
    Resume,
    Revert,
    /// The clock of the machine is set.
    Clock(i64),
    Quiet,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..12_usize).prop_map(Event::Goes),
        4 => (0..12_usize).prop_map(Event::Comes),
        1 => (0..4_usize, prop_oneof![Just(u16::MAX), any::<u16>()]).prop_map(|(n, touched)| Event::Push(n, touched)),
        2 => Just(Event::Approve),
        1 => Just(Event::Halt),
        2 => Just(Event::Resume),
        1 => Just(Event::Revert),
        1 => (-100_000..100_000_i64).prop_map(Event::Clock),
        12 => Just(Event::Quiet),
    ]
}

fn policy() -> impl Strategy<Value = Rules> {
    let amount = prop_oneof![
        (1..5_u32).prop_map(Amount::Count),
        (1..10_001_u32).prop_map(Amount::Percent),
        Just(Amount::All),
    ];
    let wave = ("ring=[ab]", amount, 0..4_u64, proptest::bool::weighted(0.2));
    let waves = proptest::collection::vec(wave, 0..3);
    (waves, 0..3_u32, proptest::bool::weighted(0.2), 0..6_u64).prop_map(|(waves, budget, window, healthy)| {
        Rules {
            waves: waves
                .into_iter()
                .enumerate()
                .map(|(n, (selector, batch, pace, approval))| Wave {
                    name: format!("w{n}"),
                    selector,
                    batch,
                    pace: Span::minutes(pace),
                    approval,
                })
                .collect(),
            window: window.then(|| Window {
                days: Vec::new(),
                from: "11:30".into(),
                to: "13:30".into(),
            }),
            gate: Gate {
                healthy_for: Span::minutes(healthy),
                failing_for: Span::minutes(1),
                timeout: Span::minutes(10),
                away_after: Span::minutes(3),
            },
            failure_budget: Amount::Count(budget),
        }
    })
}

fn fleet() -> impl Strategy<Value = Vec<(u8, Fate)>> {
    let fate = prop_oneof![
        8 => Just(Fate::Good),
        1 => Just(Fate::Fails),
        1 => Just(Fate::Hangs),
        1 => Just(Fate::Refuses),
    ];
    proptest::collection::vec((0..3_u8, fate), 1..12)
}

fn sim(sites: &[(u8, Fate)], bad: &str) -> Sim {
    let names: Vec<(String, &str)> = sites
        .iter()
        .enumerate()
        .map(|(n, (ring, _))| (format!("s{n:02}"), ["ring=a", "ring=b", ""][usize::from(*ring)]))
        .collect();
    let named: Vec<(&str, &str)> = names
        .iter()
        .map(|(name, labels)| (name.as_str(), *labels))
        .collect();
    let mut sim = Sim::new(&named);
    for ((name, _), (_, fate)) in names.iter().zip(sites) {
        sim.fate(name, bad, *fate);
    }
    sim
}

/// One look, with everything that must hold around it.
fn checked_look(sim: &mut Sim) {
    let before = sim.lineage.clone();
    let now = sim.now;
    let view = sim.view();
    let steps = sim.lineage.step(&view, now);
    let tail_is_new = before.active.is_some() && sim.lineage.active.is_none();
    let after_active = if tail_is_new {
        sim.lineage.tail.as_ref()
    } else {
        sim.lineage.active.as_ref()
    };
    check(
        before.active.as_ref(),
        after_active,
        &steps.active.actions,
        &view,
        now,
    );
    if !tail_is_new {
        check(
            before.tail.as_ref(),
            sim.lineage.tail.as_ref(),
            &steps.tail.actions,
            &view,
            now,
        );
    }
    let (newest, tail) = (
        after_active.map(|r| r.commit.clone()),
        sim.lineage.tail.as_ref().map(|r| r.commit.clone()),
    );
    sim.carry_out(&newest.unwrap_or_default(), &steps.active.actions);
    sim.carry_out(&tail.unwrap_or_default(), &steps.tail.actions);
    // A second look at the same fleet finds nothing to do, but for a gate without a length.
    let view = sim.view();
    let again = sim.lineage.clone().step(&view, now);
    for action in again.active.actions.iter().chain(&again.tail.actions) {
        assert!(
            !matches!(action, Action::Pin { .. }) || sim.newest().rules.gate.healthy_for.0.is_zero(),
            "{action:?} again\n{}",
            sim.log
        );
    }
}

fn check(before: Option<&Rollout>, after: Option<&Rollout>, actions: &[Action], view: &View, now: Now) {
    let (Some(before), Some(after)) = (before, after) else {
        assert!(actions.is_empty());
        return;
    };
    if matches!(after.phase, Phase::Reverting | Phase::Reverted) {
        let back = |action: &Action| !matches!(action, Action::Batch { .. } | Action::Open { .. });
        assert!(actions.iter().all(back));
        return;
    }
    let failed = |r: &Rollout| {
        r.sites
            .values()
            .filter(|s| s.turn == Turn::Failed && !s.excused)
            .count()
    };
    for action in actions {
        match action {
            Action::Pin { site, commit } if *commit == after.commit => {
                let site_after = &after.sites[site];
                if site_after.turn == Turn::Unchanged {
                    assert!(
                        view[site].pin.is_some(),
                        "{site} has nothing that could be the same"
                    );
                    continue;
                }
                assert!(site_after.wave < after.opened, "{site} before its wave");
                let was_told = before.sites.get(site).is_some_and(Site::is_told);
                assert!(was_told || view[site].online, "{site} was told and is not there");
                assert!(
                    was_told || after.phase != Phase::Halted,
                    "{site} was told in a halt"
                );
            }
            Action::Batch { sites, .. } => {
                let flying = |s: &Site| s.turn == Turn::Told && !s.away;
                let others = after
                    .sites
                    .iter()
                    .filter(|(id, s)| !sites.contains(id) && flying(s))
                    .count();
                assert_eq!(others, 0, "two batches in flight");
                let whole = after.sites.values().filter(|s| !s.away).count();
                let size = |wave: usize| after.rules.wave(wave).batch.of(whole).max(1);
                assert!(sites.len() <= size(after.opened - 1));
                for wave in 0..after.opened {
                    let of_wave = sites.iter().filter(|id| after.sites[*id].wave == wave).count();
                    assert!(of_wave <= size(wave));
                }
                assert!(
                    failed(after) <= after.rules.failure_budget.of(usize::MAX),
                    "told beyond the budget"
                );
                assert!(
                    !after
                        .sites
                        .values()
                        .any(|s| s.quarantined && s.turn == Turn::Failed && !s.excused)
                );
            }
            Action::Succeed { site } => {
                let since = before.sites[site].healthy_since.unwrap_or(now.steady);
                assert!(
                    now.steady - since >= after.rules.gate.healthy_for.0,
                    "{site} jumped the gate"
                );
                assert_eq!(view[site].applied.as_deref(), Some(after.commit.as_str()));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_told_that_should_not_be(
        sites in fleet(), rules in policy(), events in proptest::collection::vec(event(), 0..150),
    ) {
        let mut sim = sim(&sites, "c1");
        let names: Vec<String> = sim.sites.keys().cloned().collect();
        sim.push("c0", &rules);
        for event in events {
            match event {
                Event::Goes(n) => sim.site(&names[n % names.len()].clone()).view.online = false,
                Event::Comes(n) => sim.site(&names[n % names.len()].clone()).view.online = true,
                Event::Push(n, touched) => {
                    let commit = format!("c{n}");
                    let same = names.iter().enumerate().filter(|(n, _)| touched & (1 << n) == 0);
                    let same: Vec<&str> = same.map(|(_, name)| name.as_str()).collect();
                    if sim.newest().commit != commit {
                        sim.push_same(&commit, &rules, &same);
                    }
                }
                Event::Approve => drop(sim.newest().command(Command::Approve)),
                Event::Halt => drop(sim.newest().command(Command::Halt("x".into()))),
                Event::Resume => drop(sim.newest().command(Command::Resume)),
                Event::Revert => drop(sim.lineage.revert("x")),
                Event::Clock(by) => sim.now.wall += SignedDuration::from_secs(by),
                Event::Quiet => {}
            }
            sim.world();
            checked_look(&mut sim);
            sim.now.steady += MINUTE;
            sim.now.wall += SignedDuration::from_mins(1);
        }
    }

    /// Whoever is away for ever, the rollout ends, and everybody else has the commit.
    #[test]
    fn it_ends_without_those_who_are_away(
        sites in fleet(), rules in policy(), away in any::<u16>(), leave in 0..40_u64, later in any::<u16>(),
    ) {
        let mut sim = sim(&sites, "other");
        let names: Vec<String> = sim.sites.keys().cloned().collect();
        for (n, name) in names.iter().enumerate() {
            sim.site(name).view.online = away & (1 << n) == 0;
        }
        sim.push("c1", &rules);
        for minute in 0..4000_u64 {
            if minute == leave {
                for (n, name) in names.iter().enumerate().filter(|(n, _)| later & (1 << n) != 0) {
                    let _ = n;
                    sim.site(name).view.online = false;
                }
            }
            sim.world();
            checked_look(&mut sim);
            if sim.newest().phase == Phase::AwaitingApproval {
                sim.command(Command::Approve);
            }
            if sim.newest().phase == Phase::Succeeded && minute > leave {
                break;
            }
            sim.now.steady += MINUTE;
            sim.now.wall += SignedDuration::from_mins(1);
        }
        prop_assert_eq!(sim.newest().phase, Phase::Succeeded, "{}", sim.log);
        for (name, site) in sim.sites.iter().filter(|(_, site)| site.view.online) {
            prop_assert_eq!(site.view.pin.as_deref(), Some("c1"), "{}\n{}", name, sim.log);
        }
        // And when they come back, they get it too.
        for name in &names {
            sim.site(name).view.online = true;
        }
        for _ in 0..4000 {
            if sim.sites.values().all(|site| site.view.pin.as_deref() == Some("c1")) {
                break;
            }
            sim.minutes(1);
        }
        for (name, site) in &sim.sites {
            prop_assert_eq!(site.view.pin.as_deref(), Some("c1"), "{}\n{}", name, sim.log);
        }
    }

    /// Of sites that stay reachable, no more fail than the budget and one batch.
    #[test]
    fn failures_are_bounded(sites in fleet(), rules in policy()) {
        let mut sim = sim(&sites, "c1");
        sim.push("c1", &rules);
        for _ in 0..1500 {
            sim.minutes(1);
            if sim.newest().phase == Phase::AwaitingApproval {
                sim.command(Command::Approve);
            }
        }
        let bad = |site: &&SimSite| site.view.pin.as_deref() == Some("c1") && site.fates["c1"] != Fate::Good;
        let told_bad = sim.sites.values().filter(bad).count();
        let budget = rules.failure_budget.of(sites.len());
        let batch = (0..rules.count()).map(|w| rules.wave(w).batch.of(sites.len()).max(1)).max().unwrap();
        prop_assert!(told_bad <= budget + batch, "{told_bad} > {budget} + {batch}\n{}", sim.log);
        if told_bad > budget {
            prop_assert_eq!(sim.newest().phase, Phase::Halted);
        }
    }

    /// With everything said and done, every site is at the newest commit that came through.
    #[test]
    fn whoever_returns_ends_at_the_newest_approved_commit(
        sites in fleet(), rules in policy(), away in proptest::collection::vec(any::<u16>(), 4), spans in proptest::collection::vec(0..60_u64, 4),
        last_is_bad in any::<bool>(),
    ) {
        let mut sim = sim(&[], "");
        for (name, site) in self::sim(&sites, "c3").sites {
            sim.sites.insert(name, site);
        }
        let names: Vec<String> = sim.sites.keys().cloned().collect();
        for (n, mask) in away.iter().enumerate() {
            for (at, name) in names.iter().enumerate() {
                sim.site(name).view.online = mask & (1 << at) == 0;
                if !last_is_bad {
                    sim.fate(name, "c3", Fate::Good);
                }
            }
            sim.push(&format!("c{n}"), &rules);
            for _ in 0..spans[n] {
                if sim.newest().phase == Phase::AwaitingApproval {
                    sim.command(Command::Approve);
                }
                sim.minutes(1);
            }
        }
        for name in &names {
            sim.site(name).view.online = true;
        }
        for _ in 0..6000 {
            if sim.newest().phase == Phase::AwaitingApproval {
                sim.command(Command::Approve);
            }
            sim.minutes(1);
        }
        let newest = sim.newest().clone();
        let approved = sim.lineage.approved().map(str::to_owned);
        for (name, site) in &sim.sites {
            let here = &newest.sites[name];
            let wanted = match newest.phase {
                Phase::Succeeded => Some(newest.commit.clone()),
                _ if here.is_told() => Some(newest.commit.clone()),
                // It halted before this one's turn. What an unfinished rollout left there stays until a person says.
                _ if here.strayed || newest.finished => continue,
                _ => approved.clone(),
            };
            prop_assert_eq!(&site.view.pin, &wanted, "{}: {:?}\n{}", name, newest.phase, sim.log);
        }
    }
}
