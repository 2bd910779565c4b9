use super::*;
use rstest::rstest;

const BOUNDS: Bounds = Bounds {
    recovery: s(10),
    notice: s(5),
    grace: s(60),
};

const fn s(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn shown(machine: &str, id: u128, is_online: bool) -> Shown {
    Shown {
        machine: machine.to_owned(),
        agent: AgentId::from_u128(id),
        epoch: 3,
        is_online,
        is_routable: is_online,
    }
}

fn listed(at: u64, agents: &[Shown]) -> Fact {
    Fact::Listed {
        asked: s(at),
        at: s(at),
        agents: agents.to_vec(),
    }
}

fn registered(at: u64, id: u128, epoch: u64) -> Fact {
    Fact::Registered {
        machine: "a".to_owned(),
        agent: AgentId::from_u128(id),
        epoch,
        at: s(at),
    }
}

fn renewed(sent: u64, answered: u64) -> Fact {
    Fact::Renewed {
        machine: "a".to_owned(),
        sent: s(sent),
        answered: s(answered),
        ttl: s(4),
    }
}

fn works(at: u64) -> Fact {
    let (machine, at) = ("a".to_owned(), s(at));
    Fact::Works { machine, at }
}

fn silent(at: u64) -> Fact {
    let (machine, at) = ("a".to_owned(), s(at));
    Fact::Silent { machine, at }
}

fn disturbed(at: u64) -> Fact {
    let (machine, at) = ("a".to_owned(), s(at));
    Fact::Disturbed { machine, at }
}

fn away(from: u64, until: u64) -> Fact {
    Fact::Away {
        from: s(from),
        until: s(until),
    }
}

fn asked(began: u64, ended: u64, end: End) -> Fact {
    Fact::Asked {
        began: s(began),
        ended: s(ended),
        end,
    }
}

fn found(history: &[Fact]) -> Vec<String> {
    let found = violations(history, &BOUNDS).into_iter();
    found.map(|violation| violation.to_string()).collect()
}

#[rstest]
#[case::not_listed(&[registered(1, 1, 3), listed(2, &[])], "2.0s: a is lost")]
#[case::under_another_id(&[registered(1, 1, 3), listed(2, &[shown("a", 9, true)])], "2.0s: a is lost")]
#[case::as_it_was_before(&[registered(1, 1, 4), listed(2, &[shown("a", 1, true)])], "2.0s: a is lost")]
#[case::two_records_of_a_machine(&[listed(2, &[shown("a", 1, true), shown("a", 2, false)])], "2.0s: a is listed twice")]
#[case::two_records_of_an_id(&[listed(2, &[shown("a", 1, true), shown("b", 1, true)])], "2.0s: b is listed twice")]
#[case::offline_within_its_lease(&[renewed(1, 2), listed(4, &[shown("a", 1, false)])], "4.0s: a is wrongly offline")]
#[case::offline_though_it_works(&[works(1), listed(11, &[shown("a", 1, false)])], "11.0s: a is wrongly offline")]
#[case::offline_after_a_restart(&[works(1), away(12, 14), listed(15, &[shown("a", 1, false)])], "15.0s: a is wrongly offline")]
#[case::online_though_it_is_dead(&[silent(1), listed(6, &[shown("a", 1, true)])], "6.0s: a is wrongly online")]
#[case::online_long_after_a_restart(&[silent(1), away(2, 3), listed(63, &[shown("a", 1, true)])], "63.0s: a is wrongly online")]
#[case::failed_for_no_reason(&[asked(1, 2, End::Failed)], "a request of 1.0s ended: Failed")]
#[case::broken_after_a_restart(&[away(1, 2), asked(3, 4, End::Broken)], "a request of 3.0s ended: Broken")]
#[case::cut_without_a_word(&[away(1, 2), asked(1, 2, End::Cut)], "a request of 1.0s ended: Cut")]
#[case::hung(&[asked(1, 99, End::Hung)], "a request of 1.0s ended: Hung")]
#[case::not_idle(&[Fact::Counted { in_flight: 1, queued: 2 }], "1 in flight, 2 queued at the end")]
fn broken_promise_is_found(#[case] history: &[Fact], #[case] expected: &str) {
    assert_eq!(found(history), [expected]);
}

#[rstest]
#[case::acknowledged_after_the_list_was_asked_for(&[registered(3, 1, 3), listed(2, &[])])]
#[case::newer_epoch_than_was_told(&[registered(1, 1, 2), listed(2, &[shown("a", 1, true)])])]
#[case::lease_is_over(&[renewed(1, 2), listed(5, &[shown("a", 1, false)])])]
#[case::renewal_was_told_later(&[renewed(1, 4), listed(3, &[shown("a", 1, false)])])]
#[case::works_only_since(&[works(1), listed(10, &[shown("a", 1, false)])])]
#[case::dead_only_since(&[works(1), silent(12), listed(16, &[shown("a", 1, true)])])]
#[case::state_changed_meanwhile(&[silent(1), works(9), listed(9, &[shown("a", 1, true)])])]
#[case::disturbed_may_be_anything(&[works(1), disturbed(20), listed(90, &[shown("a", 1, false)])])]
#[case::disturbed_may_be_online(&[silent(1), disturbed(20), listed(90, &[shown("a", 1, true)])])]
#[case::grace_after_a_restart(&[silent(1), away(2, 3), listed(62, &[shown("a", 1, true)])])]
#[case::coordinator_was_away(&[away(3, 4), asked(1, 3, End::Broken), asked(4, 6, End::Failed)])]
#[case::honest_ends(&[asked(1, 2, End::Whole), asked(1, 2, End::Told), asked(1, 2, End::Left)])]
#[case::idle(&[Fact::Counted { in_flight: 0, queued: 0 }])]
fn kept_promise_is_not_blamed(#[case] history: &[Fact]) {
    assert_eq!(found(history), [""; 0]);
}

#[test]
fn machine_that_works_and_gets_nothing_is_left_out_unless_the_coordinator_is_just_back() {
    let mut unroutable = shown("a", 1, true);
    unroutable.is_routable = false;
    let agents = [unroutable];

    let late = found(&[works(1), listed(10, &agents), listed(11, &agents)]);
    let back = found(&[
        works(1),
        away(5, 6),
        listed(15, &agents),
        listed(16, &agents),
    ]);

    assert_eq!(late, ["11.0s: a gets no requests"]);
    assert_eq!(back, ["16.0s: a gets no requests"]);
}
