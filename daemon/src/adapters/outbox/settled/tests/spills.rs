//! Spills, recoveries and reads.

use super::*;

#[test]
fn what_was_spilled_is_recovered_and_read() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, found) = open(directory.path());
        assert!(found.is_new);
        let mut model = Model::default();
        let mut maker = Maker::new(seed);
        for round in 0..30 {
            let spill = maker.spill(&model);
            store.spill(&spill).unwrap();
            model.apply(&spill);
            model.check_reads(&store.reader());
            if round % 4 == 3 {
                drop(store);
                let (again, found) = open(directory.path());
                assert_eq!((found.is_new, &found.repaired), (false, &Vec::new()));
                model.check_recovered(&found);
                model.check_reads(&again.reader());
                store = again;
            }
            store.health().unwrap();
        }
    }
}
