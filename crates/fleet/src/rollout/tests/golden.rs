//! Whole stories, as a person would tell them.

use super::*;

const FIVE: [(&str, &str); 5] = [
    ("berlin", "ring=canary"),
    ("delft", ""),
    ("essen", ""),
    ("fulda", ""),
    ("gent", "ring=canary"),
];

fn waves() -> Rules {
    rules(
        r#"{"waves":[{"name":"canary","selector":"ring=canary","batch":"1"}],
            "gate":{"healthyFor":"5m"},"failureBudget":"0"}"#,
    )
}

#[test]
fn two_waves() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    insta::assert_snapshot!(sim.log, @r"
     0 push c1
     0 c1: wave 0 opens
     0 c1: batch 1: berlin
     0 c1: running
     6 c1: berlin is through
     6 c1: batch 2: gent
    12 c1: gent is through
    12 c1: wave 1 opens
    12 c1: batch 3: delft
    18 c1: delft is through
    18 c1: batch 4: essen
    24 c1: essen is through
    24 c1: batch 5: fulda
    30 c1: fulda is through
    30 c1: succeeded
    ");
}

#[test]
fn a_failure_halts_and_a_person_reverts() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    sim.log.clear();
    sim.fate("gent", "c2", Fate::Fails);
    sim.push("c2", &waves());
    sim.minutes(20);
    sim.lineage.revert("ada takes it back").unwrap();
    sim.minutes(3);
    insta::assert_snapshot!(sim.log, @r"
    40 push c2
    40 c2: wave 0 opens
    40 c2: batch 1: berlin
    40 c2: running
    46 c2: berlin is through
    46 c2: batch 2: gent
    49 c2: gent failed: it has been failing at the commit
    49 c2: halted: 1 of 5 sites failed; the policy allows 0; site gent: it has been failing at the commit
    61 c2: berlin went back
    61 c2: gent went back
    61 c2: reverted
    ");
    assert!(sim.pins().iter().all(|(_, pin)| *pin == "c1"));
}

#[test]
fn a_refused_commit_halts_whatever_the_budget() {
    let mut sim = Sim::new(&FIVE);
    let mut generous = waves();
    generous.failure_budget = Amount::All;
    sim.fate("berlin", "c1", Fate::Refuses);
    sim.push("c1", &generous);
    sim.minutes(3);
    // Looked at, and let go on.
    sim.command(Command::Resume);
    sim.minutes(20);
    insta::assert_snapshot!(sim.log, @r"
     0 push c1
     0 c1: wave 0 opens
     0 c1: batch 1: berlin
     0 c1: running
     1 c1: berlin failed: it refused the commit: its virtual machines did not start
     1 c1: halted: site berlin: it refused the commit: its virtual machines did not start
     3 c1: running
     3 c1: batch 2: gent
     9 c1: gent is through
     9 c1: wave 1 opens
     9 c1: batch 3: delft
    15 c1: delft is through
    15 c1: batch 4: essen
    21 c1: essen is through
    21 c1: batch 5: fulda
    ");
}

#[test]
fn who_was_away_has_its_turn_later() {
    let mut sim = Sim::new(&FIVE);
    sim.site("gent").view.online = false;
    sim.site("essen").view.online = false;
    sim.push("c1", &waves());
    sim.minutes(14);
    // The first wave passed by without gent.
    sim.site("gent").view.online = true;
    sim.minutes(10);
    sim.site("essen").view.online = true;
    sim.minutes(10);
    insta::assert_snapshot!(sim.log, @r"
     0 push c1
     0 c1: wave 0 opens
     0 c1: batch 1: berlin
     0 c1: running
     6 c1: berlin is through
     6 c1: wave 1 opens
     6 c1: batch 2: delft
    12 c1: delft is through
    12 c1: batch 3: fulda
    18 c1: fulda is through
    18 c1: batch 4: gent
    24 c1: gent is through
    24 c1: batch 5: essen
    30 c1: essen is through
    30 c1: succeeded
    ");
}

#[test]
fn lost_after_it_was_told() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(2);
    sim.site("berlin").view.online = false;
    sim.minutes(30);
    sim.site("berlin").view.online = true;
    sim.minutes(10);
    insta::assert_snapshot!(sim.log, @r"
     0 push c1
     0 c1: wave 0 opens
     0 c1: batch 1: berlin
     0 c1: running
    12 c1: batch 2: gent
    18 c1: gent is through
    18 c1: wave 1 opens
    18 c1: batch 3: delft
    24 c1: delft is through
    24 c1: batch 4: essen
    30 c1: essen is through
    30 c1: batch 5: fulda
    36 c1: fulda is through
    37 c1: berlin is through
    37 c1: succeeded
    ");
}

#[test]
fn windows_and_approval() {
    let mut sim = Sim::new(&FIVE);
    sim.site("berlin").view.zone = "Europe/Berlin".into();
    sim.site("gent").view.zone = "America/New_York".into();
    sim.push(
        "c1",
        &rules(
            r#"{"waves":[{"name":"canary","selector":"ring=canary","batch":"all"},{"name":"shops","approval":true,"batch":"50%","pace":"30m"}],
            "window":{"days":[],"from":"22:00","to":"04:00"},"gate":{"healthyFor":"10m"}}"#,
        ),
    );
    sim.minutes(16 * 60);
    assert_eq!(sim.newest().phase, Phase::AwaitingApproval);
    sim.command(Command::Approve);
    sim.minutes(24 * 60);
    insta::assert_snapshot!(sim.log, @r"
       0 push c1
       0 c1: wave 0 opens
     540 c1: batch 1: berlin
     540 c1: running
     551 c1: berlin is through
     900 c1: batch 2: gent
     911 c1: gent is through
     911 c1: awaitingApproval: wave shops waits to be approved
     960 c1: running
     960 c1: wave 1 opens
    2040 c1: batch 3: delft
    2051 c1: delft is through
    2070 c1: batch 4: essen
    2081 c1: essen is through
    2100 c1: batch 5: fulda
    2111 c1: fulda is through
    2111 c1: wave 2 opens
    2111 c1: succeeded
    ");
}

#[test]
fn a_newer_commit_and_late_sites() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    sim.site("fulda").view.online = false;
    sim.site("delft").view.online = false;
    sim.push("c2", &waves());
    sim.minutes(40);
    sim.log.clear();
    // c3 halts at the first canary, and so does not reach the rest.
    sim.fate("berlin", "c3", Fate::Fails);
    sim.push("c3", &waves());
    sim.minutes(10);
    // Those who missed c2 get it now: it is the newest that came through.
    sim.site("fulda").view.online = true;
    sim.minutes(10);
    sim.push("c4", &waves());
    sim.minutes(60);
    sim.site("delft").view.online = true;
    sim.minutes(10);
    insta::assert_snapshot!(sim.log, @r"
     80 push c3
     80 c3: wave 0 opens
     80 c3: batch 1: berlin
     80 c3: running
     83 c3: berlin failed: it has been failing at the commit
     83 c3: halted: 1 of 3 sites failed; the policy allows 0; site berlin: it has been failing at the commit
     90 c2: batch 4: fulda
     96 c2: fulda is through
    100 push c4, c3 superseded
    100 c4: wave 0 opens
    100 c4: batch 1: berlin
    100 c4: running
    106 c4: berlin is through
    106 c4: batch 2: gent
    112 c4: gent is through
    112 c4: wave 1 opens
    112 c4: batch 3: essen
    118 c4: essen is through
    118 c4: batch 4: fulda
    124 c4: fulda is through
    124 c4: succeeded
    160 c4: batch 5: delft
    166 c4: delft is through
    ");
    assert!(sim.pins().iter().all(|(_, pin)| *pin == "c4"));
}

#[test]
fn a_revert_takes_what_an_unfinished_rollout_left_with_it() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    sim.push("c2", &waves());
    // One canary has c2.
    sim.minutes(2);
    sim.push(
        "c3",
        &rules(r#"{"waves":[{"name":"gent","selector":"ring notin (canary)"}],"gate":{"healthyFor":"5m"}}"#),
    );
    sim.minutes(2);
    assert_eq!(sim.pins()[0], ("berlin", "c2"));
    sim.lineage.revert("back").unwrap();
    sim.minutes(2);
    assert_eq!(sim.newest().phase, Phase::Reverted);
    assert!(sim.pins().iter().all(|(_, pin)| *pin == "c1"), "{:?}", sim.pins());
}

#[test]
fn commands_out_of_place_are_refused() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(1);
    for command in [Command::Approve, Command::Resume] {
        assert!(sim.newest().command(command).is_err());
    }
    // The first commit of all has nothing before it.
    let revert = sim.newest().command(Command::Revert(String::new()));
    assert_eq!(revert, Err(Refused::NoPrevious));
    sim.minutes(40);
    assert_eq!(sim.newest().phase, Phase::Succeeded);
    assert!(sim.newest().command(Command::Approve).is_err());
    sim.command(Command::Halt("ada".into()));
    sim.command(Command::Resume);
    sim.minutes(1);
    assert_eq!(sim.newest().phase, Phase::Succeeded);
    assert_eq!(at("2026-11-20T12:42:00Z"), sim.now.wall);
}

#[test]
fn a_commit_that_concerns_two_sites() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    sim.log.clear();
    // One that is away is held at the commit like the others, and nobody waits for it.
    sim.site("delft").view.online = false;
    sim.push_same("c2", &waves(), &["berlin", "delft", "essen"]);
    sim.minutes(1);
    assert_eq!(
        sim.pins(),
        [
            ("berlin", "c2"),
            ("delft", "c2"),
            ("essen", "c2"),
            ("fulda", "c1"),
            ("gent", "c2")
        ]
    );
    sim.minutes(19);
    insta::assert_snapshot!(sim.log, @r"
    40 push c2
    40 c2: wave 0 opens
    40 c2: batch 1: gent
    40 c2: running
    46 c2: gent is through
    46 c2: wave 1 opens
    46 c2: batch 2: fulda
    52 c2: fulda is through
    52 c2: succeeded
    ");
    let waves = super::super::store::progress(sim.newest());
    let told: Vec<_> = waves
        .iter()
        .map(|wave| {
            (
                wave.name.as_str(),
                wave.total,
                wave.succeeded,
                wave.pending,
                wave.unchanged,
            )
        })
        .collect();
    assert_eq!(told, [("canary", 1, 1, 0, 1), ("rest", 1, 1, 0, 2)]);
    // Taken back: everybody is where they were.
    sim.lineage.revert("ada takes it back").unwrap();
    sim.minutes(3);
    assert!(sim.pins().iter().all(|(_, pin)| *pin == "c1"), "{:?}", sim.pins());
    assert_eq!(sim.newest().phase, Phase::Reverted);
}

#[test]
fn a_commit_that_concerns_nobody_is_through_at_once() {
    let mut sim = Sim::new(&FIVE);
    let mut careful = waves();
    careful.waves[0].approval = true;
    sim.push("c1", &careful);
    sim.minutes(1);
    sim.command(Command::Approve);
    sim.minutes(40);
    assert_eq!(sim.newest().phase, Phase::Succeeded);
    sim.push_same("c2", &careful, &["berlin", "delft", "essen", "fulda", "gent"]);
    sim.minutes(1);
    assert_eq!(
        sim.newest().phase,
        Phase::Succeeded,
        "nobody is asked to approve nothing"
    );
    assert!(sim.pins().iter().all(|(_, pin)| *pin == "c2"), "{:?}", sim.pins());
}

#[test]
fn what_is_open_at_a_site_is_not_passed_over() {
    let mut sim = Sim::new(&FIVE);
    sim.push("c1", &waves());
    sim.minutes(40);
    // A rollout stops halfway; the next commit is the same as that one for the site that was told, and the same as the
    // one before for a site that has refused its own.
    sim.fate("berlin", "c2", Fate::Refuses);
    sim.push("c2", &waves());
    sim.minutes(3);
    assert_eq!(sim.newest().phase, Phase::Halted);
    sim.site("gent")
        .view
        .quarantined
        .push(("c1".into(), "it was cut off".into()));
    sim.push_same("c3", &waves(), &["berlin", "delft", "essen", "gent"]);
    let turns: Vec<_> = sim
        .newest()
        .sites
        .iter()
        .map(|(id, site)| (id.as_str(), site.turn))
        .collect();
    use Turn::{Unchanged, Waiting};
    assert_eq!(
        turns,
        [
            ("berlin", Waiting),
            ("delft", Unchanged),
            ("essen", Unchanged),
            ("fulda", Waiting),
            ("gent", Waiting)
        ]
    );
    // And a host that refuses what should have been the same halts it, as any other.
    sim.fate("delft", "c3", Fate::Refuses);
    sim.minutes(2);
    assert_eq!(sim.newest().phase, Phase::Halted);
    assert!(
        sim.newest()
            .reason
            .starts_with("site delft: it refused the commit"),
        "{}",
        sim.newest().reason
    );
}
