//! The machines, the models and the requests of the simulated world. Pure: a seed in, figures out.

use ollama_coordinator::balancer::policy::mixed;

/// Tokens per second that a machine of speed 1 writes when it has nothing else to do.
pub(super) const WRITES: f64 = 20.0;
/// Tokens per second that such a machine reads.
pub(super) const READS: f64 = 500.0;
/// Turns of a conversation, on average.
const TURNS: f64 = 4.0;
/// Seconds between two turns: so many at least, and on average so many more.
const PAUSE: (f64, f64) = (15.0, 45.0);
const CLIENTS: u32 = 50;

/// A model.
#[derive(Debug)]
pub(super) struct Weights {
    /// Its full name.
    pub(super) name: &'static str,
    /// Gigabytes on disk and in memory.
    pub(super) gigabytes: u32,
}

/// The most popular first.
pub(super) const MODELS: [Weights; 6] = [
    weights("chat:8b", 5),
    weights("small:3b", 2),
    weights("chat:14b", 9),
    weights("chat:24b", 14),
    weights("code:7b", 5),
    weights("large:32b", 20),
];

const fn weights(name: &'static str, gigabytes: u32) -> Weights {
    Weights { name, gigabytes }
}

/// A machine.
#[derive(Debug)]
pub(super) struct Spec {
    /// Its speed as a multiple of the slowest.
    pub(super) speed: f64,
    /// How many requests it serves at once.
    pub(super) slots: u32,
    /// Gigabytes of GPU memory.
    pub(super) gigabytes: u32,
    /// Positions of the models that it has on disk.
    pub(super) models: &'static [usize],
}

/// Fast machines have more memory and more of the models.
pub(super) const MACHINES: [Spec; 12] = [
    spec(1.0, 2, 8, &[0, 1]),
    spec(1.0, 2, 8, &[0, 1, 4]),
    spec(1.0, 4, 8, &[0, 1, 4]),
    spec(2.0, 2, 16, &[0, 1, 2]),
    spec(2.0, 4, 16, &[0, 1, 2, 3, 4]),
    spec(2.0, 4, 16, &[0, 1, 2, 3, 4]),
    spec(4.0, 4, 24, &[0, 1, 2, 3]),
    spec(4.0, 4, 24, &[0, 1, 2, 3, 4, 5]),
    spec(4.0, 8, 24, &[0, 2, 3, 4, 5]),
    spec(8.0, 4, 32, &[0, 1, 2, 3, 4, 5]),
    spec(8.0, 8, 32, &[0, 1, 2, 3, 4, 5]),
    spec(8.0, 8, 32, &[0, 2, 3, 5]),
];

const fn spec(speed: f64, slots: u32, gigabytes: u32, models: &'static [usize]) -> Spec {
    Spec {
        speed,
        slots,
        gigabytes,
        models,
    }
}

impl Spec {
    /// Returns how much faster or slower than at speed 1 each of `running` requests goes: together
    /// they get more done than one would, but not as many times more as there are.
    pub(super) fn pace(&self, running: u32) -> f64 {
        self.speed / f64::from(running.max(1)).sqrt()
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Seconds since the start.
    pub(super) at: f64,
    pub(super) conversation: u32,
    pub(super) client: u64,
    /// Position of the model.
    pub(super) model: usize,
    /// Tokens of the whole conversation up to this turn.
    pub(super) prompt: u32,
    /// Tokens of the answer.
    pub(super) answer: u32,
}

impl Request {
    /// Returns the seconds that it takes at speed 1 when nothing of it was read before.
    fn work(&self) -> f64 {
        f64::from(self.prompt) / READS + f64::from(self.answer) / WRITES
    }
}

/// Numbers that are always the same for a seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mixed(seed))
    }

    /// Returns a number above 0 and below 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(1);
        let bits = u32::try_from(mixed(self.0) >> 32).unwrap_or(0);
        (f64::from(bits) + 0.5) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns a position below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        ollama_coordinator::balancer::policy::below(mixed(self.0), count)
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Draws a length: most are near `median`, a few are very long.
    fn tokens(&mut self, median: f64, spread: f64, most: u32) -> u32 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        let wanted = median * (spread * normal).exp();
        // There is no conversion without a cast; halving finds the whole number below it.
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if f64::from(middle) <= wanted {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    fn model(&mut self) -> usize {
        let shares = (1..).take(MODELS.len()).map(|rank| 1.0 / f64::from(rank));
        let mut drawn = self.unit() * shares.clone().sum::<f64>();
        let found = shares.into_iter().position(|share| {
            drawn -= share;
            drawn <= 0.0
        });
        found.unwrap_or(0)
    }
}

/// Makes `count` requests that keep the fleet busy for this share of what it can do with all slots
/// taken and nothing read before.
pub(super) fn requests(count: usize, share: f64, seed: u64) -> Vec<Request> {
    let mut dice = Dice::new(seed);
    let mut conversations = Vec::new();
    let (mut started, mut turns, mut work) = (0.0, 0.0, 0.0);
    let mut made = 0;
    let mut number = 0;
    // More than needed: those of the last conversations come after the end.
    while made < count + count / 4 + 100 {
        started += dice.exponential(1.0);
        number += 1;
        let conversation = conversation(number, &mut dice);
        made += conversation.len();
        turns += f64::from(u32::try_from(conversation.len()).unwrap_or(0));
        work += conversation.iter().map(Request::work).sum::<f64>();
        conversations.push((started, conversation));
    }
    let power: f64 = MACHINES
        .iter()
        .map(|spec| f64::from(spec.slots) * spec.pace(spec.slots))
        .sum();
    let seconds_per_request = work / turns / (power * share);
    let scale = seconds_per_request * turns / started;
    let mut requests: Vec<Request> = conversations
        .into_iter()
        .flat_map(|(started, turns)| {
            turns.into_iter().map(move |turn| Request {
                at: turn.at + started * scale,
                ..turn
            })
        })
        .collect();
    requests.sort_by(|a, b| a.at.total_cmp(&b.at));
    requests.truncate(count);
    requests
}

/// Makes the turns of one conversation, which begins at 0.
fn conversation(number: u32, dice: &mut Dice) -> Vec<Request> {
    let model = dice.model();
    let client = u64::from(number % CLIENTS);
    let mut prompt = dice.tokens(800.0, 1.0, 12_000);
    let mut at = 0.0;
    let mut turns = Vec::new();
    loop {
        let answer = dice.tokens(150.0, 0.8, 2_000);
        turns.push(Request {
            at,
            conversation: number,
            client,
            model,
            prompt,
            answer,
        });
        if dice.unit() < 1.0 / TURNS || turns.len() >= 30 {
            return turns;
        }
        prompt += answer + dice.tokens(120.0, 1.0, 4_000);
        at += PAUSE.0 + dice.exponential(PAUSE.1);
    }
}
