use proptest::prelude::*;

use super::*;

/// The orchestrator's end: what it holds of the host.
#[derive(Clone, Default)]
struct Server {
    generation: u64,
    sections: Sections,
}

impl Server {
    /// Takes a message, or wants everything.
    fn take(&mut self, status: &Status) -> bool {
        if status.base == 0 {
            self.sections.clear();
        } else if status.base != self.generation {
            return false;
        }
        for name in &status.remove {
            self.sections.remove(name);
        }
        self.sections.extend(status.set.clone());
        assert!(status.generation > self.generation, "generations only go up");
        self.generation = status.generation;
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    /// A message is made and arrives; its acknowledgement arrives or is lost.
    Send(bool),
    /// A message is made and is lost, and the connection with it.
    Lose,
    Reconnect,
    /// The daemon starts anew with these sections.
    Restart(Vec<(u8, u8)>),
    Backup,
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8, any::<u8>()).prop_map(|(a, b)| Step::Set(a, b)),
        2 => (0..6_u8).prop_map(Step::Remove),
        6 => any::<bool>().prop_map(Step::Send),
        1 => Just(Step::Lose),
        2 => Just(Step::Reconnect),
        1 => proptest::collection::vec((0..6_u8, any::<u8>()), 0..4).prop_map(Step::Restart),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
    ];
    proptest::collection::vec(step, 0..120)
}

fn name(at: u8) -> String {
    format!("vm/ns/{at}")
}

fn exchange(book: &StatusBook, server: &mut Server, acknowledged: bool) -> bool {
    let Some(HostMessage::Status(status)) = book.next_status() else {
        return false;
    };
    if !server.take(&status) {
        book.resync();
    } else if acknowledged {
        book.acknowledged(status.generation);
    } else {
        book.disconnected();
        book.welcome(server.generation);
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_lost_the_orchestrator_ends_with_what_is_true(steps in steps()) {
        let (mut book, mut server) = (StatusBook::new(), Server::default());
        let mut backup = server.clone();
        book.welcome(0);
        for step in steps {
            match step {
                Step::Set(at, value) => book.set(&name(at), json!(value)),
                Step::Remove(at) => book.remove(&name(at)),
                Step::Send(acknowledged) => { exchange(&book, &mut server, acknowledged); }
                Step::Lose => {
                    let _ = book.next_status();
                    book.disconnected();
                    book.welcome(server.generation);
                }
                Step::Reconnect => {
                    book.disconnected();
                    book.welcome(server.generation);
                }
                Step::Restart(sections) => {
                    book = StatusBook::new();
                    for (at, value) in sections {
                        book.set(&name(at), json!(value));
                    }
                    book.welcome(server.generation);
                }
                Step::Backup => backup = server.clone(),
                Step::Restore => {
                    server = backup.clone();
                    book.disconnected();
                    book.welcome(server.generation);
                }
            }
        }
        // A host that has nothing at all to say doesn't say it: one section makes it speak.
        book.set("health", json!("healthy"));
        while exchange(&book, &mut server, true) {}
        let book_now = book.lock();
        let truth: Sections = book_now.sections.iter().map(|(name, section)| (name.clone(), section.value.clone())).collect();
        prop_assert_eq!(&server.sections, &truth);
        drop(book_now);
        prop_assert!(book.is_in_step());
    }
}

#[test]
fn the_same_value_again_is_no_change() {
    let book = StatusBook::new();
    book.welcome(0);
    book.set("health", json!({"state": "healthy"}));
    let Some(HostMessage::Status(first)) = book.next_status() else {
        panic!("a status is due")
    };
    book.acknowledged(first.generation);
    book.set("health", json!({"state": "healthy"}));
    assert_eq!(book.next_status(), None);
    assert!(book.is_in_step());
}

#[test]
fn a_group_of_sections_is_replaced_as_a_whole() {
    let book = StatusBook::new();
    for name in ["vm/a", "vm/b", "vmx", "nic/eth0"] {
        book.set(name, json!(1));
    }
    let now = BTreeMap::from([("b".to_owned(), json!(2)), ("c".to_owned(), json!(3))]);
    book.replace("vm/", now);
    let got = |name| book.get(name);
    assert_eq!(
        (got("vm/a"), got("vm/b"), got("vm/c")),
        (None, Some(json!(2)), Some(json!(3)))
    );
    assert_eq!((got("vmx"), got("nic/eth0")), (Some(json!(1)), Some(json!(1))));
}

#[test]
fn more_removals_than_are_remembered_lead_to_everything_anew() {
    let book = StatusBook::new();
    let mut server = Server::default();
    for at in 0..=TOMBSTONES_MAX {
        book.set(&format!("vm/{at}"), json!(1));
    }
    book.set("health", json!("healthy"));
    book.welcome(0);
    while exchange(&book, &mut server, true) {}
    let backup = server.clone();
    book.replace("vm/", BTreeMap::new());
    while exchange(&book, &mut server, true) {}
    assert_eq!(server.sections.len(), 1);
    let mut server = backup;
    book.disconnected();
    book.welcome(server.generation);
    while exchange(&book, &mut server, true) {}
    assert_eq!(server.sections.len(), 1);
}
