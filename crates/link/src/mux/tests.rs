use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// What may happen to a pair of ends.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Write(bool, usize, usize),
    Read(bool, usize, usize),
    Finish(bool, usize),
    Drop(bool, usize),
    Deliver(bool, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = any::<bool>;
    let step = prop_oneof![
        1 => Just(Step::Open),
        4 => (side(), 0..6_usize, 1..50_000_usize).prop_map(|(a, b, c)| Step::Write(a, b, c)),
        4 => (side(), 0..6_usize, 1..50_000_usize).prop_map(|(a, b, c)| Step::Read(a, b, c)),
        1 => (side(), 0..6_usize).prop_map(|(a, b)| Step::Finish(a, b)),
        1 => (side(), 0..6_usize).prop_map(|(a, b)| Step::Drop(a, b)),
        8 => (side(), 1..20_usize).prop_map(|(a, b)| Step::Deliver(a, b)),
    ];
    proptest::collection::vec(step, 0..200)
}

/// Two ends, and what was said and heard on each stream in each direction.
struct Pair {
    ends: [Core; 2],
    said: [BTreeMap<u32, Vec<u8>>; 2],
    heard: [BTreeMap<u32, Vec<u8>>; 2],
    open: Vec<u32>,
    dropped: [std::collections::BTreeSet<u32>; 2],
}

impl Pair {
    fn new() -> Self {
        Self {
            ends: [Core::new(true, 5), Core::new(false, 5)],
            said: Default::default(),
            heard: Default::default(),
            open: Vec::new(),
            dropped: Default::default(),
        }
    }

    fn id(&self, at: usize) -> Option<u32> {
        (!self.open.is_empty()).then(|| self.open[at % self.open.len()])
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open => self.open.extend(self.ends[0].open(b"{}").ok()),
            Step::Write(side, at, length) => {
                let (side, Some(id)) = (usize::from(side), self.id(at)) else {
                    return;
                };
                let Some(half) = self.ends[side].streams.get_mut(&id) else {
                    return;
                };
                if half.finishing || half.dropped || half.reset.is_some() {
                    return;
                }
                let said = self.said[side].entry(id).or_default();
                let length = length.min(OUTBOX_MAX - half.outbox.len());
                let bytes: Vec<u8> = (said.len()..said.len() + length)
                    .map(|at| u8::try_from(at % 251).unwrap())
                    .collect();
                said.extend(&bytes);
                half.outbox.extend_from_slice(&bytes);
                self.ends[side].queue(id);
            }
            Step::Read(side, at, most) => {
                let (side, Some(id)) = (usize::from(side), self.id(at)) else {
                    return;
                };
                let Some(half) = self.ends[side].streams.get_mut(&id) else {
                    return;
                };
                if half.dropped {
                    return;
                }
                let bytes = take(&mut half.inbox, most);
                half.taken += u32::try_from(bytes.len()).unwrap();
                self.heard[side].entry(id).or_default().extend(&bytes[..]);
                self.ends[side].give_credit(id);
            }
            Step::Finish(side, at) => {
                let (side, Some(id)) = (usize::from(side), self.id(at)) else {
                    return;
                };
                if let Some(half) = self.ends[side].streams.get_mut(&id) {
                    half.finishing = true;
                    self.ends[side].queue(id);
                }
            }
            Step::Drop(side, at) => {
                let (side, Some(id)) = (usize::from(side), self.id(at)) else {
                    return;
                };
                self.ends[side].drop_stream(id);
                self.dropped[side].insert(id);
            }
            Step::Deliver(side, count) => {
                let from = usize::from(side);
                for _ in 0..count {
                    let Some(frame) = self.ends[from].next_frame() else {
                        return;
                    };
                    let frame = Frame::parse(&frame).unwrap();
                    self.ends[1 - from]
                        .receive(frame)
                        .expect("both ends keep the rules");
                }
            }
        }
        for end in &self.ends {
            assert!(end.held() <= URGENT_MAX + 10 * (WINDOW as usize + OUTBOX_MAX));
        }
    }

    /// Lets everything come to rest: all is delivered and read.
    fn rest(&mut self) {
        for _ in 0..1000 {
            for side in [false, true] {
                self.step(&Step::Deliver(side, 1000));
                for at in 0..self.open.len() {
                    self.step(&Step::Read(side, at, usize::MAX));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_said_is_heard_in_order_and_all_of_it_where_nobody_gave_up(steps in steps()) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.rest();
        for side in 0..2 {
            for (id, said) in &pair.said[side] {
                let heard = pair.heard[1 - side].get(id).cloned().unwrap_or_default();
                prop_assert!(said.starts_with(&heard), "stream {id}: other bytes were heard than said");
                let given_up = pair.dropped[0].contains(id) || pair.dropped[1].contains(id);
                prop_assert!(given_up || said.len() == heard.len(), "stream {id}: {} of {}", heard.len(), said.len());
            }
        }
        // When both sides let go of everything, nothing is left.
        for at in 0..pair.open.len() {
            pair.step(&Step::Finish(false, at));
            pair.step(&Step::Finish(true, at));
            pair.step(&Step::Drop(false, at));
            pair.step(&Step::Drop(true, at));
        }
        pair.rest();
        prop_assert_eq!((pair.ends[0].streams.len(), pair.ends[1].streams.len()), (0, 0));
        prop_assert_eq!((pair.ends[0].held(), pair.ends[1].held()), (0, 0));
    }

    #[test]
    fn a_peer_that_says_anything_makes_us_hold_no_more_than_is_stated(
        opener in any::<bool>(),
        frames in proptest::collection::vec((0..6_u8, 1..8_u32, 0..70_000_usize), 0..400),
    ) {
        let mut core = Core::new(opener, 4);
        for _ in 0..4 {
            let _ = core.open(b"{}");
        }
        for (kind, id, size) in frames {
            let payload = Bytes::from(vec![0; size.min(65_536)]);
            let frame = match kind {
                0 => Frame::Control(payload),
                1 => Frame::Open(id, Bytes::new()),
                2 => Frame::Data(id, payload),
                3 => Frame::Credit(id, u32::try_from(size).unwrap()),
                4 => Frame::Finish(id),
                _ => Frame::Reset(id, "x".into()),
            };
            // The connection would be closed at the first violation; to go on is harder.
            let _ = core.receive(frame);
            prop_assert!(core.held() <= URGENT_MAX + 4 * WINDOW as usize);
        }
    }
}

#[test]
fn a_peer_that_opens_without_reading_is_cut_off() {
    let mut core = Core::new(false, 1);
    core.receive(Frame::Open(1, Bytes::new())).unwrap();
    let mut id = 1;
    let violation = loop {
        id += 1;
        // Each refusal waits to be read.
        if let Err(violation) = core.receive(Frame::Open(id, Bytes::new())) {
            break violation;
        }
        assert!(core.held() <= URGENT_MAX);
    };
    assert_eq!(violation, Violation::Backlog);
}

#[test]
fn control_goes_first_and_streams_take_turns() {
    let mut core = Core::new(true, 8);
    let ids: Vec<u32> = (0..3).map(|_| core.open(b"{}").unwrap()).collect();
    for id in &ids {
        core.streams
            .get_mut(id)
            .unwrap()
            .outbox
            .extend_from_slice(&vec![0; 40_000]);
        core.queue(*id);
    }
    core.push_urgent(Frame::Control(Bytes::from_static(b"{}")).encode())
        .unwrap();
    let mut kinds = Vec::new();
    while let Some(frame) = core.next_frame() {
        kinds.push((frame[0], frame.get(4).copied().unwrap_or(0)));
    }
    let opens = [(1, 1), (1, 2), (1, 3), (0, 0)];
    let turns = [(2, 1), (2, 2), (2, 3)];
    assert_eq!(kinds, [&opens[..], &turns, &turns, &turns].concat());
}

#[test]
fn rules_are_kept() {
    let mut core = Core::new(true, 8);
    let id = core.open(b"{}").unwrap();
    assert_eq!(core.receive(Frame::Open(9, Bytes::new())), Err(Violation::Opened));
    assert_eq!(core.receive(Frame::Finish(2)), Err(Violation::Unknown(2)));
    assert_eq!(
        core.receive(Frame::Credit(id, u32::MAX)),
        Err(Violation::Credit(id))
    );
    let much = Bytes::from(vec![0; WINDOW as usize]);
    assert_eq!(core.receive(Frame::Data(id, much)), Ok(None));
    let more = Bytes::from_static(b"x");
    assert_eq!(
        core.receive(Frame::Data(id, more.clone())),
        Err(Violation::Overrun(id))
    );
    assert_eq!(core.receive(Frame::Finish(id)), Ok(None));
    assert_eq!(
        core.receive(Frame::Data(id, more)),
        Err(Violation::AfterFinish(id))
    );
    // What crosses a reset of ours is no fault.
    core.reset(id, "enough");
    assert_eq!(core.receive(Frame::Credit(id, 5)), Ok(None));
    let mut host = Core::new(false, 8);
    host.receive(Frame::Open(4, Bytes::new())).unwrap();
    assert_eq!(
        host.receive(Frame::Open(4, Bytes::new())),
        Err(Violation::Reopened(4))
    );
}
