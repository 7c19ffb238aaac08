//! Changes of the way to the gateway are kept only when the gateway still answers.

use std::{net::Ipv4Addr, sync::Arc};

use reconcile::section::{Applied, Problem};
use telemetry::chain;
use tokio::time::Instant;

use super::{Inner, State, Wish};
use crate::{
    apply::{apply_database, apply_kernel, reaches},
    desired::Desired,
    observe::{Kernel, Observed},
    plan::{KernelStep, Plan},
    report::problem,
};

/// What to come back to.
pub(super) struct Checkpoint {
    gateway: Ipv4Addr,
    kernel: Kernel,
}

impl Inner {
    /// A checkpoint, if the wish is a new one, the way to the gateway is over what we change, and the gateway
    /// answers now.
    pub(super) async fn arm(
        &self,
        state: &State,
        desired: &Arc<Desired>,
        plan: &Plan,
        observed: &Observed,
    ) -> Option<Checkpoint> {
        let news = match &state.applied {
            Some(applied) => applied.desired != *desired,
            None => !plan.is_empty(),
        };
        let default = observed.kernel.routes.iter().find(|r| r.destination.1 == 0)?;
        let uplink = || {
            desired
                .switches
                .iter()
                .flat_map(|s| &s.uplinks)
                .any(|u| u.device == default.device)
        };
        let ours = default.device.starts_with("vmk") || uplink();
        let gateway = default.gateway.filter(|_| news && ours)?;
        let answers = reaches(gateway, None).await;
        answers.then(|| Checkpoint {
            gateway,
            kernel: observed.kernel.clone(),
        })
    }

    /// Carries out the kernel's part of a plan.
    pub(super) async fn change_kernel(
        &self,
        state: &mut State,
        plan: &Plan,
        drift: bool,
    ) -> Result<(), Problem> {
        let failed = apply_kernel(&plan.kernel).await.err();
        let wish = Wish {
            desired: state.desired.clone().unwrap_or_default(),
            ..Wish::default()
        };
        let after = self.observe(&wish.desired).await?;
        let left = self.plan(&wish, &after).kernel;
        let done = plan.kernel.iter().filter(|step| !left.contains(step));
        state.untold.extend(done.map(|step| Applied {
            message: step.to_string(),
            drift,
        }));
        match (left.first(), failed) {
            (None, _) => Ok(()),
            (Some(step), Some(error)) => Err(problem(
                "ApplyFailed",
                format!("{}; still to do: {step}", chain(&error)),
            )),
            (Some(step), None) => Err(problem(
                "NotConverged",
                format!("the host did not stay so; still to do: {step}"),
            )),
        }
    }

    /// Keeps the change if the gateway answers in time, else undoes it.
    pub(super) async fn verify(
        &self,
        state: &mut State,
        checkpoint: Checkpoint,
        desired: &Arc<Desired>,
    ) -> Result<(), Problem> {
        let until = Instant::now() + self.config.checkpoint;
        while Instant::now() < until {
            if reaches(checkpoint.gateway, None).await {
                return Ok(());
            }
        }
        let mut message = format!(
            "after the change the gateway {} did not answer for {:?}: the change was undone",
            checkpoint.gateway, self.config.checkpoint
        );
        if let Err(problem) = self.undo(state, &checkpoint, desired).await {
            message = format!("{message}, but not wholly: {}", problem.message);
        }
        let problem = problem("ConnectivityLost", message);
        state.reject(desired, problem.clone(), self.config.checkpoint * 3);
        Err(problem)
    }

    async fn undo(
        &self,
        state: &mut State,
        checkpoint: &Checkpoint,
        desired: &Desired,
    ) -> Result<(), Problem> {
        let back = state.applied.clone().unwrap_or_default();
        let observed = self.observe(&back.desired).await?;
        let plan = self.plan(&back, &observed);
        let mut snapshots = self.snapshots.clone();
        if !plan.steps.is_empty() {
            apply_database(&self.client, &mut snapshots, &plan.steps, &observed.database)
                .await
                .map_err(|error| problem("ApplyFailed", chain(&error).to_string()))?;
        }
        let observed = self.observe(desired).await?;
        let flows = self
            .flows(state, &back.desired, &plan.attachments, &observed)
            .await;
        let steps = restore(&checkpoint.kernel, &observed.kernel);
        if !steps.is_empty() {
            let applied = apply_kernel(&steps).await;
            applied.map_err(|error| problem("ApplyFailed", chain(&error).to_string()))?;
        }
        state.desired = Some(back.desired);
        flows.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The steps that bring addresses and routes back.
fn restore(then: &Kernel, now: &Kernel) -> Vec<KernelStep> {
    let mut steps = Vec::new();
    for device in then
        .links
        .iter()
        .filter(|(name, link)| !link.silent && now.links.get(*name).is_some_and(|l| l.silent))
    {
        steps.push(KernelStep::Unsilence {
            device: device.0.clone(),
        });
    }
    let gone =
        |a: &&crate::observe::Address| !then.addresses.contains(a) && now.links.contains_key(&a.device);
    steps.extend(
        now.addresses
            .iter()
            .filter(gone)
            .cloned()
            .map(KernelStep::RemoveAddress),
    );
    let lost = then.addresses.iter().filter(|a| !now.addresses.contains(a));
    steps.extend(lost.cloned().map(KernelStep::AddAddress));
    let routes = then.routes.iter().filter(|r| !now.routes.contains(r));
    steps.extend(routes.cloned().map(KernelStep::SetRoute));
    steps
}
