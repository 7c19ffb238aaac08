//! The part of the API that this domain uses, so that its tests can stand in for it.

use apiserver::{Client, Status, client::EventType};
use async_trait::async_trait;
use kinds::{Gvr, Object, gvr};
use serde_json::Value;

/// The API.
#[async_trait]
pub(crate) trait Objects: Send + Sync + 'static {
    async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Object>, Status>;
    async fn virtual_machines(&self) -> Result<Vec<Object>, Status>;
    async fn set_status(&self, namespace: &str, name: &str, status: Value) -> Result<(), Status>;
    async fn set_finalizer(
        &self,
        namespace: &str,
        name: &str,
        finalizer: &str,
        present: bool,
    ) -> Result<(), Status>;
    async fn event(&self, regarding: &Object, warning: bool, reason: &str, message: &str);
    /// Paths of fields of a virtual machine that its schema does not know.
    fn unknown_fields(&self, vm: &Object) -> Vec<String>;
}

#[async_trait]
impl Objects for Client {
    async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        Self::get(self, gvr, namespace, name).await
    }

    async fn virtual_machines(&self) -> Result<Vec<Object>, Status> {
        Ok(self.list(&gvr::virtual_machines(), None).await?.items)
    }

    async fn set_status(&self, namespace: &str, name: &str, status: Value) -> Result<(), Status> {
        Self::set_status(self, &gvr::virtual_machines(), namespace, name, status)
            .await
            .map(drop)
    }

    async fn set_finalizer(
        &self,
        namespace: &str,
        name: &str,
        finalizer: &str,
        present: bool,
    ) -> Result<(), Status> {
        Self::set_finalizer(
            self,
            &gvr::virtual_machines(),
            namespace,
            name,
            finalizer,
            present,
        )
        .await
    }

    async fn event(&self, regarding: &Object, warning: bool, reason: &str, message: &str) {
        let kind = if warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        Self::event(self, regarding, kind, reason, message).await;
    }

    fn unknown_fields(&self, vm: &Object) -> Vec<String> {
        let kind = self
            .api()
            .registry()
            .by_kind("vmoperator.vmware.com", "VirtualMachine");
        kind.map(|kind| kind.unknown_fields(vm)).unwrap_or_default()
    }
}
