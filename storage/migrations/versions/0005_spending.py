"""What the model calls of a session took, counted in its row; what was spent before is not.

The function of 0003 stays for workers of the release before, which count nothing.

What is written here stays as it is: databases out there were made by it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COUNTED = ("tokens", "nano_usd", "model_calls")


def upgrade() -> None:
    for name in COUNTED:
        op.add_column("sessions", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        schema = bind.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        bind.exec_driver_sql(APPEND.replace("{schema}", schema))


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION perdure_append_counted")
    for name in COUNTED:
        op.drop_column("sessions", name)


APPEND = """\
CREATE FUNCTION perdure_append_counted(
    in_app text, in_user_id text, in_session_id text,
    in_epoch bigint, in_begins boolean, in_reopen boolean, in_now timestamptz,
    in_event_id text, in_invocation_id text, in_author text, in_branch text,
    in_content json, in_state_delta json, in_usage json, in_error json, in_meta json,
    in_created_at timestamptz,
    in_own text[], in_own_values text[], in_own_expected text[],
    in_shared text[], in_shared_users text[], in_shared_values text[], in_shared_expected text[],
    in_tokens bigint, in_nano_usd bigint, in_model_calls bigint,
    OUT at_seq bigint, OUT at_epoch bigint, OUT undo json
) LANGUAGE plpgsql
SET search_path = {schema}, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    was record;
    is_as_expected boolean;
    prior text;
BEGIN
    SELECT s.epoch, s.head, s.ended_at INTO was FROM sessions s
     WHERE s.app = in_app AND s.user_id = in_user_id AND s.id = in_session_id
       FOR UPDATE;
    IF NOT FOUND
       OR was.epoch <> in_epoch
       OR (was.ended_at IS NOT NULL AND NOT in_reopen)
    THEN
        RETURN;
    END IF;
    IF in_begins THEN
        PERFORM FROM events e
          WHERE e.app = in_app AND e.user_id = in_user_id AND e.session_id = in_session_id
            AND e.invocation_id = in_invocation_id AND e.compaction IS NULL
          LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    IF cardinality(in_own) > 0 THEN
        SELECT json_object_agg(k.name, coalesce(k.value, 'null') ORDER BY k.place),
               bool_and(k.expected IS NULL OR k.expected = coalesce(k.value::text, ''))
          INTO undo, is_as_expected
          FROM (SELECT own.*,
                       (SELECT s.value FROM state s
                         WHERE s.app = in_app AND s.user_id = in_user_id AND s.session_id = in_session_id
                           AND s.key = own.name) AS value
                  FROM unnest(in_own, in_own_expected) WITH ORDINALITY AS own(name, expected, place)
                OFFSET 0) k;
        IF NOT is_as_expected THEN
            RETURN;
        END IF;
    END IF;

    -- Its conflict says whether the id is taken: no plan can go wrong there, as a look-up's could.
    INSERT INTO events (app, user_id, session_id, seq, event_id, invocation_id, author, branch,
                        content, state_delta, state_undo, usage, error, meta, created_at)
    VALUES (in_app, in_user_id, in_session_id, was.head + 1, in_event_id, in_invocation_id, in_author,
            in_branch, in_content, in_state_delta, undo, in_usage, in_error, in_meta, in_created_at)
        ON CONFLICT (app, user_id, session_id, event_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at_seq := was.head + 1;

    IF cardinality(in_shared) > 0 THEN
        FOR i IN 1 .. cardinality(in_shared) LOOP
            IF in_shared_expected[i] = '' AND in_shared_values[i] IS NOT NULL THEN
                -- What is not there cannot be locked: make it, or somebody else has.
                INSERT INTO state (app, user_id, session_id, key, value)
                VALUES (in_app, in_shared_users[i], '', in_shared[i], in_shared_values[i]::json)
                    ON CONFLICT DO NOTHING;
                IF NOT FOUND THEN
                    RAISE SQLSTATE 'PD001';
                END IF;
                CONTINUE;
            END IF;
            IF in_shared_expected[i] IS NOT NULL THEN
                SELECT s.value::text INTO prior FROM state s
                 WHERE s.app = in_app AND s.user_id = in_shared_users[i] AND s.session_id = ''
                   AND s.key = in_shared[i]
                   FOR UPDATE;
                IF in_shared_expected[i] <> coalesce(prior, '') THEN
                    RAISE SQLSTATE 'PD001';
                END IF;
            END IF;
            IF in_shared_values[i] IS NULL THEN
                DELETE FROM state s
                 WHERE s.app = in_app AND s.user_id = in_shared_users[i] AND s.session_id = ''
                   AND s.key = in_shared[i];
            ELSE
                INSERT INTO state (app, user_id, session_id, key, value)
                VALUES (in_app, in_shared_users[i], '', in_shared[i], in_shared_values[i]::json)
                    ON CONFLICT (app, user_id, session_id, key) DO UPDATE SET value = excluded.value;
            END IF;
        END LOOP;
    END IF;

    IF cardinality(in_own) > 0 THEN
        INSERT INTO state (app, user_id, session_id, key, value)
        SELECT in_app, in_user_id, in_session_id, own.name, own.value::json
          FROM unnest(in_own, in_own_values) AS own(name, value)
         WHERE own.value IS NOT NULL
            ON CONFLICT (app, user_id, session_id, key) DO UPDATE SET value = excluded.value;
        IF array_position(in_own_values, NULL) IS NOT NULL THEN
            DELETE FROM state s
             WHERE s.app = in_app AND s.user_id = in_user_id AND s.session_id = in_session_id
               AND s.key = ANY (ARRAY(SELECT own.name FROM unnest(in_own, in_own_values) AS own(name, value)
                                       WHERE own.value IS NULL));
        END IF;
    END IF;

    at_epoch := was.epoch + CASE WHEN in_begins AND in_epoch IS NULL THEN 1 ELSE 0 END;
    UPDATE sessions s
       SET version = s.version + 1, epoch = at_epoch, head = at_seq, updated_at = in_now, ended_at = NULL,
           tokens = s.tokens + in_tokens, nano_usd = s.nano_usd + in_nano_usd,
           model_calls = s.model_calls + in_model_calls
     WHERE s.app = in_app AND s.user_id = in_user_id AND s.id = in_session_id;
END
$$
"""
