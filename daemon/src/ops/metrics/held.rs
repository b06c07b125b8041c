//! A gauge that goes down again by itself.

use prometheus_client::metrics::gauge::Gauge;

/// Holds a gauge one higher until it is dropped, whatever way that comes about.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Raises the gauge by one.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
