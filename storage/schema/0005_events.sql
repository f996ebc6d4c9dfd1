-- Events with names beside their ids, and what of `detail` every reader asks for as columns. SQLite
-- 3.40 refuses JSON functions in views of a file that is not trusted, and how we open files that is
-- every file. So the values are cut out of the text: the coordinator writes it without spaces, and
-- a quote within a string stands behind a backslash, so that "name": is found as a name only.
CREATE VIEW v_event AS
SELECT e.event_id AS event_id, e.event_time_us AS event_time_us, e.kind AS kind,
       e.sweep_id AS sweep_id, s.name AS sweep_name,
       e.cell_id AS cell_id, m.name AS model, me.method AS method, me.bits AS bits,
       me.label AS method_label, b.name AS benchmark,
       e.item_index AS item_index, i.name AS item, e.repeat AS repeat,
       substr(e.from_lease, 1, instr(e.from_lease, '"') - 1) AS lease_id,
       e.worker_id AS worker_id, e.detail AS detail
  FROM (SELECT id AS event_id, time_us AS event_time_us, kind, sweep_id, cell_id, worker_id, detail,
               CASE WHEN instr(detail, '"item_index":') > 0
                    THEN CAST(substr(detail, instr(detail, '"item_index":') + 13) AS INTEGER)
               END AS item_index,
               CASE WHEN instr(detail, '"repeat":') > 0
                    THEN CAST(substr(detail, instr(detail, '"repeat":') + 9) AS INTEGER)
               END AS repeat,
               CASE WHEN instr(detail, '"lease_id":"') > 0
                    THEN substr(detail, instr(detail, '"lease_id":"') + 12)
               END AS from_lease
          FROM event) AS e
  LEFT JOIN sweep AS s ON s.public_id = e.sweep_id
  LEFT JOIN cell AS c ON c.id = e.cell_id
  LEFT JOIN model AS m ON m.id = c.model_id
  LEFT JOIN method AS me ON me.id = c.method_id
  LEFT JOIN benchmark AS b ON b.id = c.benchmark_id
  LEFT JOIN item AS i ON i.benchmark_id = c.benchmark_id AND i.item_index = e.item_index;
