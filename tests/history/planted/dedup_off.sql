-- A batch that is known is stored again.
SELECT rewrite('append_group', 'ELSIF batch < expected THEN', 'ELSIF false THEN');
