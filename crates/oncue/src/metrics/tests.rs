//! The sums agree with the model's formulas, and what is stored is read back.

use proptest::prelude::*;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn sample(published: i64, started: i64, settled: i64, ended: Ended) -> Sample {
    let (published, started, settled) = (at(published), at(started), at(settled));
    Sample { generated: None, published, started, settled, ended, again: false }
}

#[test]
fn art_and_throughput_are_what_the_model_says() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(0, 400, 1_000, Ended::Acked));
    stats.record(&sample(500, 600, 900, Ended::Retried));
    stats.record(&sample(500, 3_000, 3_500, Ended::Dead));
    stats.record(&sample(600, 700, 750, Ended::Deferred));
    assert_eq!((stats.acked, stats.retried, stats.dead, stats.deferred, stats.finished()), (1, 1, 1, 1, 2));
    assert_eq!(
        (stats.total_us, stats.handling_us, stats.waiting_us(), stats.unfinished_us),
        (4_000, 1_100, 2_900, 350)
    );
    assert_eq!(stats.art(), Some(Duration::from_micros(2_000)));
    assert_eq!(stats.average_handling(), Some(Duration::from_micros(550)));
    assert_eq!(stats.average_waiting(), Some(Duration::from_micros(1_450)));
    assert_eq!(stats.span(), Some(Duration::from_micros(3_500)));
    assert!(stats.throughput().is_some_and(|rate| (rate - 2.0 / 0.0035).abs() < 1e-6));
    assert_eq!(stats.percentile(1.0), Some(Duration::from_micros(3_000)));
}

#[test]
fn a_dead_letter_that_is_handled_again_counts_once_and_its_time_until_then_not_at_all() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(0, 400, 1_000, Ended::Dead));
    let before = stats.clone();
    for ended in [Ended::Retried, Ended::Dead, Ended::Acked] {
        stats.record(&Sample { again: true, ..sample(0, 9_000_000, 9_000_500, ended) });
    }
    assert_eq!((stats.acked, stats.retried, stats.dead, stats.again), (1, 1, 2, 2), "what was done is counted");
    assert_eq!((stats.finished(), stats.art(), stats.span()), (1, before.art(), before.span()), "the event is not");
    assert_eq!((stats.percentile(1.0), stats.unfinished_us), (before.percentile(1.0), 1_500));
}

#[test]
fn nothing_finished_has_no_averages() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(0, 1, 2, Ended::Retried));
    assert_eq!((stats.art(), stats.throughput(), stats.percentile(0.5)), (None, None, None));
    let at_once = HandlerStats { acked: 1, first_published: Some(at(5)), last_settled: Some(at(5)), ..stats };
    assert_eq!(at_once.throughput(), None);
}

#[test]
fn time_runs_from_generation_where_it_is_known() {
    let mut stats = HandlerStats::default();
    stats.record(&Sample { generated: Some(at(-9_000)), ..sample(0, 500, 1_000, Ended::Acked) });
    assert_eq!((stats.total_us, stats.system_us, stats.waiting_us()), (10_000, 1_000, 500));
    assert_eq!(stats.art_since_published(), Some(Duration::from_millis(1)));
    assert_eq!(stats.percentile(1.0), Some(Duration::from_millis(1)));
    assert_eq!(stats.span(), Some(Duration::from_micros(1_000)), "throughput is measured from publishing all the same");
}

#[test]
fn a_clock_that_steps_back_gives_zero_and_absurd_times_do_not_overflow() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(1_000, 900, 800, Ended::Acked));
    assert_eq!((stats.total_us, stats.handling_us), (0, 0));
    for _ in 0..3 {
        stats.record(&sample(i64::MIN, i64::MIN, i64::MAX, Ended::Acked));
    }
    assert!(stats.art().is_some() && stats.total_us > u128::from(u64::MAX / 2));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["acked"], 4);
}

#[test]
fn json_has_the_sums_and_what_follows_from_them() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(0, 500, 2_000, Ended::Acked));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!((&json["n"], &json["total_us_sum"], &json["handling_us_sum"]), (&1.into(), &2000.into(), &1500.into()));
    assert_eq!(
        (&json["art_ms"], &json["max_ms"], &json["throughput_per_s"]),
        (&2.0.into(), &2.0.into(), &500.0.into())
    );
    assert!(serde_json::to_value(HandlerStats::default()).unwrap()["art_ms"].is_null());
}

fn stored(stats: &HandlerStats) -> Vec<u8> {
    let mut out = Writer::default();
    stats.encode(&mut out);
    out.as_slice().to_vec()
}

fn read(stored: &[u8]) -> Result<HandlerStats, Malformed> {
    HandlerStats::decode(&mut Reader::new(stored))
}

#[test]
fn what_is_not_ours_is_refused() {
    let mut stats = HandlerStats::default();
    stats.record(&sample(0, 500, 2_000, Ended::Acked));
    let mut stored = stored(&stats);
    assert!(read(&[]).is_err());
    assert!(read(&[9]).unwrap_err().to_string().contains("newer"));
    for cut in 0..stored.len() {
        assert!(read(&stored[..cut]).is_err());
    }
    stored[1] = 7; // seven acked, one measured
    assert!(read(&stored).is_err());
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let ended = proptest::sample::select(vec![Ended::Acked, Ended::Retried, Ended::Dead, Ended::Deferred]);
    let time = 0_i64..10_000_000_000;
    let one = (proptest::option::of(any::<i64>()), time.clone(), time.clone(), time, ended, any::<bool>());
    let one = one.prop_map(|(generated, published, waits, takes, ended, again)| Sample {
        generated: generated.map(at),
        again,
        ..sample(published, published + waits, published + waits + takes, ended)
    });
    proptest::collection::vec(one, 0..60)
}

fn of(samples: &[Sample]) -> HandlerStats {
    let mut stats = HandlerStats::default();
    samples.iter().for_each(|sample| stats.record(sample));
    stats
}

proptest! {
    #[test]
    fn what_is_stored_is_read_back(samples in samples()) {
        let stats = of(&samples);
        prop_assert_eq!(read(&stored(&stats)), Ok(stats));
    }

    #[test]
    fn merging_is_recording_both(one in samples(), other in samples()) {
        let mut merged = of(&one);
        merged.merge(&of(&other));
        prop_assert_eq!(merged, of(&[one, other].concat()));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = read(&[[LAYOUT].as_slice(), &bytes].concat());
    }
}
