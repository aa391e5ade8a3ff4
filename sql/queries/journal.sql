-- name: marks(node)
-- metering.service: where it stands in the files of its journal.
SELECT fingerprint, generation, name, position, marker, is_finished
FROM journal_files
WHERE node = :node;

-- name: move_mark(node, fingerprint, generation, name, position, marker, is_finished, before)^
-- metering.settle, first of the transaction: the compare-and-set that makes a replay harmless.
-- Answers nothing if another process has moved the mark meanwhile.
INSERT INTO journal_files AS f (node, fingerprint, generation, name, position, marker, is_finished)
VALUES (:node, :fingerprint, :generation, :name, :position, :marker, :is_finished)
ON CONFLICT (node, fingerprint, generation) DO UPDATE
SET name = excluded.name,
    position = excluded.position,
    marker = excluded.marker,
    is_finished = excluded.is_finished,
    updated_at = now()
WHERE f.position = :before
RETURNING generation;

-- name: finish_lost(node, fingerprint, generation)!
-- metering.service: a file that went away before it was read to its end.
UPDATE journal_files
SET is_finished = true, updated_at = now()
WHERE node = :node AND fingerprint = :fingerprint AND generation = :generation;

-- name: eof_at(node)$
-- metering.service, on start: how far behind the journal is known to be.
SELECT eof_at
FROM nodes
WHERE node = :node;

-- name: set_eof_at(eof_at, node)!
-- metering.settle: the journal was read to an end that is no older than this.
UPDATE nodes
SET eof_at = greatest(eof_at, :eof_at::timestamptz)
WHERE node = :node;

-- name: add_boot(node, boot)!
-- metering.settle: a committed boot line makes its node known.
INSERT INTO nodes (node, boot)
VALUES (:node, :boot)
ON CONFLICT (node) DO UPDATE
SET boot = greatest(nodes.boot, excluded.boot);

-- name: sequences(node)
-- metering.service, on start: which line numbers were seen of each boot.
SELECT boot, next, ahead, lost, missing
FROM journal_sequences
WHERE node = :node;

-- name: set_sequences(node, boot, next, ahead, lost, missing)!
-- metering.settle: which line numbers are seen now.
INSERT INTO journal_sequences (node, boot, next, ahead, lost, missing)
VALUES (:node, :boot, :next, :ahead, :lost, :missing)
ON CONFLICT (node, boot) DO UPDATE
SET next = excluded.next, ahead = excluded.ahead, lost = excluded.lost, missing = excluded.missing;

-- name: add_dead_letters(node, fingerprint, generation, positions, lengths, digests, reasons, raws)!
-- metering.settle: lines that were not understood.
INSERT INTO dead_letters (node, fingerprint, generation, position, length, sha256, reason, raw)
SELECT :node, :fingerprint, :generation, d.position, d.length, d.sha256, d.reason, d.raw
FROM unnest(
    :positions::bigint[], :lengths::bigint[], :digests::bytea[], :reasons::text[], :raws::bytea[]
) AS d (position, length, sha256, reason, raw)
ON CONFLICT DO NOTHING;

-- name: forget_marks(node, kept, days)!
-- metering.retention: files that were read to their end long ago and are there no more.
DELETE FROM journal_files
WHERE node = :node AND is_finished AND updated_at < now() - make_interval(days => :days)
    AND fingerprint <> ALL(:kept::bytea[]);

-- name: wanted_letters(node, count)
-- metering.replay: dead letters that an operator wants to be read again, those kept whole.
SELECT id, reason, position, raw
FROM dead_letters
WHERE node = :node AND is_replay_wanted AND replayed_at IS NULL AND length = octet_length(raw)
ORDER BY id
LIMIT :count;

-- name: letters_replayed(understood, tried)!
-- metering.replay: which of those that were tried are understood now; the others wait to be wanted again.
UPDATE dead_letters
SET is_replay_wanted = false,
    replayed_at = CASE WHEN id = ANY(:understood::bigint[]) THEN now() END
WHERE id = ANY(ARRAY(
    SELECT id FROM dead_letters WHERE id = ANY(:tried::bigint[]) ORDER BY id FOR UPDATE
));
