//! Plans that people ask for.

use std::{collections::BTreeMap, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use super::{HostState, Planner, SiteInput, add};
use crate::{
    Caller, Error, Fleet, Page, Query, Role, args,
    db::{Row, Sql},
    log::new_id,
    model::{Map, ObjectRef, Plan, PlanSpec, PlanState, PlanTotals, SitePlan, Time},
    page::{Order, Sort, count},
};

/// Plans that a tenant keeps; the oldest go.
const KEPT: i64 = 100;
/// Sites in a kept result.
const MOST_SITES: usize = 10_000;
/// A plan that is running for longer was cut off with its process.
const LONGEST_SECONDS: i64 = 900;

/// Which commits are wanted of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The repository's id.
    pub repository: String,
    /// The tenant's id.
    pub tenant: String,
    /// A branch, tag or commit: what would be rolled out.
    pub to: String,
    /// The branch that the sites follow now.
    pub branch: String,
}

/// Where the commits are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// A bare repository that has both.
    pub folder: PathBuf,
    /// The newest commit of the branch that the sites follow.
    pub from: String,
    /// What would be rolled out, as a commit.
    pub to: String,
}

/// Gets commits of a registered repository. The server implements it with `git fetch`.
pub trait Source: Send + Sync + 'static {
    /// Makes the commits available. The error is a sentence for people, without credentials.
    fn fetch<'s>(
        &'s self,
        wanted: &'s Wanted,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched, String>> + Send + 's>>;

    /// A bare repository that has `to`, a commit's hash. Where it is here already nothing need be fetched.
    fn holding<'s>(
        &'s self,
        wanted: &'s Wanted,
    ) -> Pin<Box<dyn Future<Output = Result<PathBuf, String>> + Send + 's>> {
        Box::pin(async move { Ok(self.fetch(wanted).await?.folder) })
    }
}

/// See [`Fleet::plans`].
#[derive(Clone, Copy, Debug)]
pub struct Plans<'a>(&'a Fleet);

impl Fleet {
    /// What commits would change.
    #[must_use]
    pub fn plans(&self) -> Plans<'_> {
        Plans(self)
    }
}

const SHOWN: &str = "l.id,COALESCE((SELECT r.name FROM repository r WHERE r.tenant=l.tenant AND r.id=l.repository),''),\
     l.from_commit,l.to_commit,l.state,l.message,l.totals,l.created_at,l.created_by";

fn read(row: &Row, now: Time, sites: Vec<SitePlan>) -> Plan {
    let created_at = row.time(7);
    let mut plan = Plan {
        id: row.text(0),
        repository: row.text(1),
        from: row.text(2),
        to: row.text(3),
        state: row.word(4),
        message: row.text(5),
        totals: row.json(6),
        sites,
        created_at,
        created_by: row.text(8),
    };
    if plan.state == PlanState::Running && created_at.plus_seconds(LONGEST_SECONDS) < now {
        plan.state = PlanState::Failed;
        plan.message = "the orchestrator was stopped while it planned: ask again".into();
    }
    plan
}

impl Plans<'_> {
    /// Begins to plan; the answer is a plan that is running. It goes on by itself.
    ///
    /// # Errors
    /// The caller may not, there is no such repository, or the database.
    pub async fn start(
        &self,
        caller: &Caller,
        spec: &PlanSpec,
        source: Arc<dyn Source>,
    ) -> Result<Plan, Error> {
        caller.require_anywhere(Role::Operator)?;
        let to = match (&spec.reference, &spec.commit) {
            (Some(reference), None) => reference,
            (None, Some(commit)) => commit,
            _ => return Err(Error::invalid("ref", "give either a ref or a commit")),
        };
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '+' | '@' | '#');
        let odd =
            to.is_empty() || to.len() > 255 || to.starts_with('-') || to.contains("..") || to.contains("@{");
        if odd || !to.chars().all(fits) {
            return Err(Error::invalid("ref", "is no name of a branch, tag or commit"));
        }
        let sql = "SELECT id,name,branch FROM repository WHERE tenant=$1 AND (name=$2 OR id=$2)";
        let row = self
            .0
            .db()
            .row(sql, args![&caller.tenant, &spec.repository])
            .await?;
        let row = row.ok_or_else(|| Error::not_found("repository", &spec.repository))?;
        let wanted = Wanted {
            repository: row.text(0),
            tenant: caller.tenant.clone(),
            to: to.clone(),
            branch: spec.branch.clone().unwrap_or_else(|| row.text(2)),
        };
        let plan = Plan {
            id: new_id(self.0.db().now()),
            repository: row.text(1),
            from: String::new(),
            to: to.clone(),
            state: PlanState::Running,
            message: String::new(),
            totals: PlanTotals::default(),
            sites: Vec::new(),
            created_at: self.0.db().now(),
            created_by: caller.actor.clone(),
        };
        let (made, repository) = (&plan, wanted.repository.as_str());
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run(
                        "INSERT INTO plan (tenant,id,repository,from_commit,to_commit,state,message,totals,sites,created_at,created_by)
                         VALUES ($1,$2,$3,'',$4,'running','','{}','[]',$5,$6)",
                        args![&caller.tenant, &made.id, repository, &made.to, made.created_at, &caller.actor],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM plan WHERE tenant=$1 AND id NOT IN
                         (SELECT id FROM plan WHERE tenant=$1 ORDER BY created_at DESC,id DESC LIMIT $2)",
                        args![&caller.tenant, KEPT],
                    )
                    .await?;
                    let object = ObjectRef {
                        kind: "plan".into(),
                        id: made.id.clone(),
                        name: made.to.clone(),
                    };
                    tx.audit(caller, "plan.create", object, None::<&()>, Some(made));
                    Ok(())
                })
            })
            .await?;
        let (fleet, caller, id) = (self.0.clone(), caller.clone(), plan.id.clone());
        tokio::spawn(async move {
            let outcome = work(&fleet, &caller, &wanted, source).await;
            if let Err(error) = finish(&fleet, &caller.tenant, &id, outcome).await {
                tracing::warn!(error = %telemetry::chain(&error), "a plan can't be kept");
            }
        });
        Ok(plan)
    }

    /// One, with the sites that the caller may see.
    ///
    /// # Errors
    /// There is none, or the database.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Plan, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let mut sql = Sql::new(&format!("SELECT {SHOWN},l.sites FROM plan l WHERE l.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND l.id=").bind(id);
        let row = self.0.db().query(sql).await?.into_iter().next();
        let row = row.ok_or_else(|| Error::not_found("plan", id))?;
        let mut sites: Vec<SitePlan> = row.json(9);
        if caller.role().is_none() {
            let mut sql = Sql::new("SELECT s.name FROM site s WHERE s.tenant=");
            sql.bind(caller.tenant.as_str());
            caller.restrict(Role::Viewer, "s", &mut sql);
            let rows = self.0.db().query(sql).await?;
            let seen: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.str(0)).collect();
            sites.retain(|site| seen.contains(site.site.as_str()));
        }
        let mut plan = read(&row, self.0.db().now(), sites);
        if caller.role().is_none() {
            // The sums are of sites that this one may not see, too.
            let looked_at = plan.totals.sites;
            plan.totals = PlanTotals::default();
            plan.totals.sites = looked_at.min(i64::try_from(plan.sites.len()).unwrap_or(0));
            for site in &plan.sites {
                add(&mut plan.totals, site);
            }
        }
        Ok(plan)
    }

    /// Plans without their sites, the newest first.
    ///
    /// # Errors
    /// The caller may not, or the database.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Plan>, Error> {
        caller.require(Role::Viewer)?;
        const SORTS: &[Sort] = &[Sort {
            name: "createdAt",
            column: "l.created_at",
            number: true,
        }];
        let mut query = query.clone();
        query.sort.get_or_insert_with(|| "-createdAt".into());
        let order = Order::new(&query, SORTS, "l.id")?;
        let mut filter = Sql::new("FROM plan l WHERE l.tenant=");
        filter.bind(caller.tenant.as_str());
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select(SHOWN);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        let now = self.0.db().now();
        Ok(order.page(rows, total, (7, 0), |row| read(row, now, Vec::new())))
    }
}

/// What came of it.
struct Outcome {
    from: String,
    to: String,
    totals: PlanTotals,
    sites: Vec<SitePlan>,
    message: String,
}

async fn work(
    fleet: &Fleet,
    caller: &Caller,
    wanted: &Wanted,
    source: Arc<dyn Source>,
) -> Result<Outcome, String> {
    let failed = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    };
    let fetched = source.fetch(wanted).await?;
    let (ids, sites) = inputs(fleet, caller, wanted).await.map_err(|e| failed(&e))?;
    let now = fleet.db().now().timestamp();
    let total = sites.len();
    let Fetched { folder, from, to } = fetched.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut planner = Planner::open(&folder, &from, &to, now)?;
        let changed = planner.changed(&sites)?;
        Ok::<_, super::PlanError>((planner, sites, changed))
    });
    let (mut planner, sites, changed) = looked
        .await
        .map_err(|_| "it was cut off".to_owned())?
        .map_err(|e| failed(&e))?;
    let mut outcome = Outcome {
        from: fetched.from,
        to: fetched.to,
        totals: PlanTotals {
            sites: i64::try_from(total).unwrap_or(i64::MAX),
            ..PlanTotals::default()
        },
        sites: Vec::new(),
        message: String::new(),
    };
    // In portions, so that neither the states of all hosts nor a worker thread are held for long.
    let sites = Arc::new(sites);
    for some in changed.chunks(200) {
        let wanted: Vec<&str> = some.iter().map(|changed| ids[changed.at].as_str()).collect();
        let mut hosts = states(fleet, &caller.tenant, &wanted)
            .await
            .map_err(|e| failed(&e))?;
        let work: Vec<_> = some
            .iter()
            .map(|changed| {
                (
                    changed.clone(),
                    hosts.remove(&ids[changed.at]).unwrap_or_default(),
                )
            })
            .collect();
        let sites = Arc::clone(&sites);
        let planned = tokio::task::spawn_blocking(move || {
            let plans: Vec<SitePlan> = work
                .iter()
                .map(|(changed, hosts)| planner.site(&sites[changed.at], &changed.from, hosts))
                .collect();
            (planner, plans)
        });
        let (given_back, plans) = planned.await.map_err(|_| "it was cut off".to_owned())?;
        planner = given_back;
        for plan in plans {
            add(&mut outcome.totals, &plan);
            let unchanged = plan.objects.is_empty() && plan.errors.is_empty() && plan.more == 0;
            if !unchanged && outcome.sites.len() < MOST_SITES {
                outcome.sites.push(plan);
            } else if !unchanged {
                outcome.message =
                    format!("only the first {MOST_SITES} sites are listed; the totals are of all");
            }
        }
    }
    Ok(outcome)
}

/// The sites that follow the branch, as the caller may see them: ids, and what is built.
async fn inputs(
    fleet: &Fleet,
    caller: &Caller,
    wanted: &Wanted,
) -> Result<(Vec<String>, Vec<SiteInput>), Error> {
    let mut sql = Sql::new(
        "SELECT s.id,s.name,s.path,s.applied,s.variables,s.secret_names,s.labels,
         (SELECT t.name FROM tenant t WHERE t.id=s.tenant) FROM site s
         JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository WHERE s.tenant=",
    );
    sql.bind(wanted.tenant.as_str())
        .push(" AND s.repository=")
        .bind(wanted.repository.as_str());
    sql.push(" AND COALESCE(s.branch,r.branch)=")
        .bind(wanted.branch.as_str());
    caller.restrict(Role::Viewer, "s", &mut sql);
    sql.push(" ORDER BY s.name");
    let rows = fleet.db().query(sql).await?;
    let site = |row: &Row| SiteInput {
        name: row.text(1),
        path: super::run::clean(row.str(2)),
        applied: row.opt_text(3),
        variables: variables(row),
        secret_variables: row.json(5),
    };
    Ok((
        rows.iter().map(|row| row.text(0)).collect(),
        rows.iter().map(site).collect(),
    ))
}

/// A site's variables and what its hosts know of themselves beside them. A site without variables has nothing filled
/// in, so that its scripts stay as they are.
fn variables(row: &Row) -> Map {
    let own: Map = row.json(4);
    if own.is_empty() && row.str(5).len() <= 2 {
        return own;
    }
    let word = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    let labels: Map = row.json(6);
    let labels = labels.into_iter().map(|(name, value)| {
        let name: String = name.chars().map(word).collect();
        (format!("SELVEDGE_LABEL_{name}"), value)
    });
    let mut all: Map = labels.collect();
    all.insert("SELVEDGE_TENANT".into(), row.text(7));
    all.insert("SELVEDGE_SITE".into(), row.text(1));
    all.insert("SELVEDGE_HOST".into(), "(host)".into());
    all.extend(own);
    all
}

/// What the hosts of sites have reported, by site.
async fn states(
    fleet: &Fleet,
    tenant: &str,
    sites: &[&str],
) -> Result<BTreeMap<String, Vec<HostState>>, Error> {
    let mut sql = Sql::new(
        "SELECT h.site,h.id,h.name,x.name,x.value FROM host h
         LEFT JOIN section x ON x.tenant=h.tenant AND x.host=h.id
          AND (x.name='inventory' OR x.name LIKE 'nic/%' OR x.name LIKE 'vm/%')
         WHERE h.phase='enrolled' AND h.tenant=",
    );
    sql.bind(tenant)
        .push(" AND h.site IN ")
        .list(sites.iter().copied());
    let mut hosts: BTreeMap<(String, String), HostState> = BTreeMap::new();
    for row in fleet.db().query(sql).await? {
        let host = hosts
            .entry((row.text(0), row.text(1)))
            .or_insert_with(|| HostState {
                name: row.text(2),
                ..HostState::default()
            });
        let value: serde_json::Value = row.json(4);
        match row.str(3).split_once('/') {
            None if row.str(3) == "inventory" => host.memory = value["memoryBytes"].as_u64(),
            Some(("nic", nic)) => host.nics.get_or_insert_default().extend([nic.to_owned()]),
            Some(("vm", vm)) => {
                if let Some((namespace, name)) = vm.split_once('/') {
                    let power = value["power"].as_str().unwrap_or_default().to_owned();
                    host.machines
                        .get_or_insert_default()
                        .insert((namespace.into(), name.into()), power);
                }
            }
            _ => {}
        }
    }
    let mut by_site: BTreeMap<String, Vec<HostState>> = BTreeMap::new();
    for ((site, _), host) in hosts {
        by_site.entry(site).or_default().push(host);
    }
    Ok(by_site)
}

async fn finish(
    fleet: &Fleet,
    tenant: &str,
    id: &str,
    outcome: Result<Outcome, String>,
) -> Result<(), Error> {
    let (state, outcome) = match outcome {
        Ok(outcome) => ("done", outcome),
        Err(message) => {
            let outcome = Outcome {
                from: String::new(),
                to: String::new(),
                totals: PlanTotals::default(),
                sites: Vec::new(),
                message,
            };
            ("failed", outcome)
        }
    };
    let totals = &serde_json::to_string(&outcome.totals).unwrap_or_default();
    let sites = &serde_json::to_string(&outcome.sites).unwrap_or_default();
    let outcome = &outcome;
    fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                tx.run(
                    "UPDATE plan SET state=$3,message=$4,totals=$5,sites=$6,from_commit=$7,
                     to_commit=CASE WHEN $8='' THEN to_commit ELSE $8 END WHERE tenant=$1 AND id=$2",
                    args![
                        tenant,
                        id,
                        state,
                        &outcome.message,
                        totals,
                        sites,
                        &outcome.from,
                        &outcome.to
                    ],
                )
                .await
                .map(drop)
            })
        })
        .await
}
