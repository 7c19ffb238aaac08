//! The shape that most kinds of objects have in the API: a list and one to make, one to read, change and delete. Lists are
//! pages, the object's generation is its ETag, a change honours `If-Match`.

/// A module `$module` with the five endpoints of one kind, and their `router()`. `$room` is the fleet's method for the kind.
macro_rules! crud {
    (
        mod $module:ident: $room:ident of $One:ident by $Spec:ident, tag $tag:tt,
        at $many:tt, $one:tt with $parameter:tt ($how:tt),
        $list:tt, $create:tt, $get:tt, $update:tt, $delete:tt
    ) => {
        mod $module {
            use axum::{
                extract::{Path, Query, State},
                http::{HeaderMap, StatusCode},
                response::{IntoResponse, Response},
            };
            use fleet::model::{$One, $Spec};
            use serde_json::Value;
            use utoipa_axum::{router::OpenApiRouter, routes};

            use crate::{
                app::Shared,
                http::{
                    auth::In,
                    body::Json,
                    conditional::{if_match, tagged},
                    list::List,
                    problem::Problem,
                },
            };

            pub(super) fn router() -> OpenApiRouter<Shared> {
                OpenApiRouter::new()
                    .routes(routes!(list, create))
                    .routes(routes!(get, update, delete))
            }

            /// All of them, in pages.
            #[utoipa::path(get, path = $many, tag = $tag, operation_id = $list,
                params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
                responses((status = 200, description = "A page", body = fleet::Page<$One>)))]
            async fn list(
                State(app): State<Shared>,
                In(caller): In,
                Query(query): Query<List>,
            ) -> Result<Response, Problem> {
                let page = app.fleet.$room().list(&caller, &query.into()).await?;
                Ok(axum::Json(page).into_response())
            }

            /// Makes one.
            #[utoipa::path(post, path = $many, tag = $tag, operation_id = $create,
                params(("tenant" = String, Path, description = "Tenant, by name or id"),
                    ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
                request_body = $Spec,
                responses((status = 201, description = "Made", body = $One)))]
            async fn create(
                State(app): State<Shared>,
                In(caller): In,
                Json(spec): Json<$Spec>,
            ) -> Result<Response, Problem> {
                let made = app.fleet.$room().create(&caller, &spec).await?;
                Ok(tagged(StatusCode::CREATED, made.generation, &made))
            }

            /// Reads one.
            #[utoipa::path(get, path = $one, tag = $tag, operation_id = $get,
                params(("tenant" = String, Path, description = "Tenant, by name or id"), ($parameter = String, Path, description = $how)),
                responses((status = 200, description = "The object; its generation is the ETag", body = $One)))]
            async fn get(
                State(app): State<Shared>,
                In(caller): In,
                Path((_, name)): Path<(String, String)>,
            ) -> Result<Response, Problem> {
                let found = app.fleet.$room().get(&caller, &name).await?;
                Ok(tagged(StatusCode::OK, found.generation, &found))
            }

            /// Changes one.
            #[utoipa::path(patch, path = $one, tag = $tag, operation_id = $update,
                params(("tenant" = String, Path, description = "Tenant, by name or id"), ($parameter = String, Path, description = $how),
                    ("if-match" = Option<String>, Header, description = "The ETag that was read")),
                request_body(content = $Spec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
                responses((status = 200, description = "Changed", body = $One)))]
            async fn update(
                State(app): State<Shared>,
                In(caller): In,
                Path((_, name)): Path<(String, String)>,
                headers: HeaderMap,
                Json(patch): Json<Value>,
            ) -> Result<Response, Problem> {
                let generation = if_match(&headers)?;
                let found = app.fleet.$room().update(&caller, &name, generation, &patch).await?;
                Ok(tagged(StatusCode::OK, found.generation, &found))
            }

            /// Deletes one.
            #[utoipa::path(delete, path = $one, tag = $tag, operation_id = $delete,
                params(("tenant" = String, Path, description = "Tenant, by name or id"), ($parameter = String, Path, description = $how),
                    ("if-match" = Option<String>, Header, description = "The ETag that was read")),
                responses((status = 204, description = "Gone")))]
            async fn delete(
                State(app): State<Shared>,
                In(caller): In,
                Path((_, name)): Path<(String, String)>,
                headers: HeaderMap,
            ) -> Result<Response, Problem> {
                app.fleet.$room().delete(&caller, &name, if_match(&headers)?).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
        }
    };
}

pub(super) use crud;
