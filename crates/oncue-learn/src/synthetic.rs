//! Streams whose law is known, from the papers that learners of streams are compared on.

/// What the caller draws uniform numbers in [0, 1) with.
pub type Uniform<'a> = &'a mut dyn FnMut() -> f64;

/// SEA (Street and Kim, *A Streaming Ensemble Algorithm for Large-Scale Classification*, KDD 2001): three numbers in
/// [0, 10), of which the third says nothing; true where the first two add up to θ at most, with a share of labels turned.
/// In the paper four blocks of the stream have θ = 8, 9, 7, 9.5, and a tenth of labels is turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sea {
    /// θ.
    pub threshold: f64,
    /// How many of the labels are turned.
    pub noise: f64,
}

impl Sea {
    /// θ of the paper's four blocks.
    pub const THRESHOLDS: [f64; 4] = [8.0, 9.0, 7.0, 9.5];

    /// The next example.
    pub fn next(&self, uniform: Uniform<'_>) -> ([f64; 3], bool) {
        let numbers = [0; 3].map(|_| 10.0 * uniform());
        let turned = uniform() < self.noise;
        (numbers, (numbers[0] + numbers[1] <= self.threshold) != turned)
    }
}

/// A person who asks for a loan (Agrawal, Imielinski and Swami, *Database Mining: A Performance Perspective*, IEEE TKDE 5,
/// 1993, table 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Person {
    /// 20,000 to 150,000.
    pub salary: f64,
    /// None above 75,000 of salary; else 10,000 to 75,000.
    pub commission: f64,
    /// 20 to 80.
    pub age: f64,
    /// Level of education, 0 to 4.
    pub level: u8,
    /// Maker of the car, 1 to 20.
    pub car: u8,
    /// Of nine towns.
    pub town: u8,
    /// Value of the house: depends on the town.
    pub house: f64,
    /// Years for which it was owned, 1 to 30.
    pub owned: f64,
    /// 0 to 500,000.
    pub loan: f64,
}

impl Person {
    /// The next one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    pub fn next(uniform: Uniform<'_>) -> Self {
        let whole = |from: f64, to: f64, uniform: Uniform<'_>| (from + (to - from + 1.0) * uniform()).floor();
        let salary = 20_000.0 + 130_000.0 * uniform();
        let commission = if salary >= 75_000.0 { 0.0 } else { 10_000.0 + 65_000.0 * uniform() };
        let age = whole(20.0, 80.0, uniform);
        let (level, car, town) = (whole(0.0, 4.0, uniform), whole(1.0, 20.0, uniform), whole(0.0, 8.0, uniform));
        // 0.5·k to 1.5·k times 100,000, where k is the town's.
        let house = (town + 1.0) * 100_000.0 * (0.5 + uniform());
        let owned = whole(1.0, 30.0, uniform);
        let loan = 500_000.0 * uniform();
        Self { salary, commission, age, level: level as u8, car: car as u8, town: town as u8, house, owned, loan }
    }

    /// Whether the person is of group A by one of the paper's ten functions, 1 to 10; false for any other number.
    #[must_use]
    pub fn is_group_a(&self, function: u8) -> bool {
        let Self { salary, age, loan, .. } = *self;
        let level = f64::from(self.level);
        let by_age = |young: bool, middle: bool, old: bool| match age {
            age if age < 40.0 => young,
            age if age < 60.0 => middle,
            _ => old,
        };
        let within = |value: f64, from: f64, to: f64| (from * 1e3..=to * 1e3).contains(&value);
        let income = salary + self.commission;
        let equity = if self.owned < 20.0 { 0.0 } else { 0.1 * self.house * (self.owned - 20.0) };
        let pays = |salary: f64, from, to, then: (f64, f64), other: (f64, f64)| {
            let (least, most) = if within(salary, from, to) { then } else { other };
            within(loan, least, most)
        };
        let paid = |learned: bool, then: (f64, f64), other: (f64, f64)| {
            let (least, most) = if learned { then } else { other };
            within(salary, least, most)
        };
        match function {
            1 => by_age(true, false, true),
            2 => by_age(within(salary, 50.0, 100.0), within(salary, 75.0, 125.0), within(salary, 25.0, 75.0)),
            3 => by_age(self.level <= 1, (1..=3).contains(&self.level), self.level >= 2),
            4 => by_age(
                paid(self.level <= 1, (25.0, 75.0), (50.0, 100.0)),
                paid((1..=3).contains(&self.level), (50.0, 100.0), (75.0, 125.0)),
                paid(self.level >= 2, (50.0, 100.0), (25.0, 75.0)),
            ),
            5 => by_age(
                pays(salary, 50.0, 100.0, (100.0, 300.0), (200.0, 400.0)),
                pays(salary, 75.0, 125.0, (200.0, 400.0), (300.0, 500.0)),
                pays(salary, 25.0, 75.0, (300.0, 500.0), (100.0, 300.0)),
            ),
            6 => by_age(within(income, 50.0, 100.0), within(income, 75.0, 125.0), within(income, 25.0, 75.0)),
            7 => 0.67 * income - 0.2 * loan - 20_000.0 > 0.0,
            8 => 0.67 * income - 5_000.0 * level - 20_000.0 > 0.0,
            9 => 0.67 * income - 5_000.0 * level - 0.2 * loan - 10_000.0 > 0.0,
            10 => 0.67 * income - 5_000.0 * level + 0.2 * equity - 10_000.0 > 0.0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: Person = Person {
        salary: 60_000.0,
        commission: 20_000.0,
        age: 30.0,
        level: 2,
        car: 3,
        town: 4,
        house: 400_000.0,
        owned: 25.0,
        loan: 200_000.0,
    };

    #[test]
    fn the_ten_functions_are_those_of_the_paper() {
        let of = |person: Person| -> Vec<u8> { (1..=10).filter(|function| person.is_group_a(*function)).collect() };
        // 0.67·80,000 = 53,600; less 40,000 of the loan and 20,000; less 10,000 for education; and 40,000 of the house.
        assert_eq!(of(PERSON), [1, 2, 4, 5, 6, 8, 10]);
        assert_eq!(of(Person { age: 50.0, ..PERSON }), [3, 4, 6, 8, 10]);
        assert_eq!(of(Person { age: 70.0, level: 0, loan: 350_000.0, ..PERSON }), [1, 2, 4, 5, 8, 10]);
        assert_eq!(of(Person { age: 70.0, level: 0, loan: 0.0, ..PERSON }), [1, 2, 4, 7, 8, 9, 10]);
        assert!(!PERSON.is_group_a(0) && !PERSON.is_group_a(11));
    }

    #[test]
    fn what_is_drawn_has_its_law() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut uniform = || random.f64();
        let people: Vec<Person> = (0..20_000).map(|_| Person::next(&mut uniform)).collect();
        for person in &people {
            assert!((20e3..150e3).contains(&person.salary) && (20.0..=80.0).contains(&person.age));
            assert_eq!(person.commission == 0.0, person.salary >= 75e3);
            assert!(person.level <= 4 && (1..=20).contains(&person.car) && person.town <= 8);
        }
        // Ages are 61 whole numbers: 40 to 59 are 20 of them.
        let share = people.iter().filter(|person| person.is_group_a(1)).count() as f64 / 20_000.0;
        assert!((share - 41.0 / 61.0).abs() < 0.015, "{share}");
        let sea = Sea { threshold: 8.0, noise: 0.1 };
        // P(x + y ≤ 8) = 0.32; of labels a tenth is turned.
        let share = (0..20_000).filter(|_| sea.next(&mut uniform).1).count() as f64 / 20_000.0;
        assert!((share - (0.32 * 0.9 + 0.68 * 0.1)).abs() < 0.015, "{share}");
    }
}
