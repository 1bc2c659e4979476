-- Replicas are not told which chunks a merge has replaced, so their views keep them.
SELECT rewrite('commit_manifest', 'SET dropped_version = new_version', 'SET dropped_version = 0');
