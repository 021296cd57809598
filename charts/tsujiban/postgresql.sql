-- Database and roles of one service in PostgreSQL 15 or later: run once for each service, as a role that may make roles and databases; in 13 and 14 as a
-- superuser. Passwords come by the environment, so that neither a process list nor a history of commands has them; psql 14 or later is needed for that. A
-- server that logs such statements (log_statement = ddl) has them in its log.
--
--   export OWNER_PASSWORD=... SERVICE_PASSWORD=...   (two passwords of this service alone)
--   psql "host=... dbname=postgres user=... sslmode=verify-full sslrootcert=..." --variable service=backup --file postgresql.sql
--
-- and the same for `audit`, with passwords of its own.
--
-- Makes database tsujiban_SERVICE, role tsujiban_SERVICE_owner, to which it belongs and who makes the tables (`database.SERVICE.owner` in the chart's
-- values), and role tsujiban_SERVICE, as which the service connects and who may do nothing but what the migrations let it do. Run again, or for a database
-- that was there before, it sets the passwords anew and puts right whose the database is.
\set ON_ERROR_STOP on
\getenv owner_password OWNER_PASSWORD
\getenv service_password SERVICE_PASSWORD
\if :{?service}
\else
  \warn 'say which service: --variable service=backup'
  SELECT 'no service was named'::int;
\endif
\if :{?owner_password}
\else
  \warn 'OWNER_PASSWORD is not set: export it before psql is started'
  SELECT 'no OWNER_PASSWORD'::int;
\endif
\if :{?service_password}
\else
  \warn 'SERVICE_PASSWORD is not set: export it before psql is started'
  SELECT 'no SERVICE_PASSWORD'::int;
\endif

SELECT format('tsujiban_%s', :'service') AS role, format('tsujiban_%s_owner', :'service') AS owner \gset

SELECT format('CREATE ROLE %I', name) FROM (VALUES (:'owner'), (:'role')) AS wanted (name)
    WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE :"owner" LOGIN PASSWORD :'owner_password';
ALTER ROLE :"role" LOGIN PASSWORD :'service_password';
-- whoever is no superuser has to be a member of the role to which a database is given, and is not afterwards
SELECT EXISTS (SELECT 1 FROM pg_auth_members WHERE roleid = :'owner'::regrole AND member = CURRENT_USER::regrole) AS was_member,
    rolsuper AS is_superuser FROM pg_roles WHERE rolname = CURRENT_USER \gset
\if :is_superuser
\else
  GRANT :"owner" TO CURRENT_USER;
\endif
SELECT format('CREATE DATABASE %I OWNER %I ENCODING UTF8 TEMPLATE template0', :'role', :'owner')
    WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = :'role') \gexec
ALTER DATABASE :"role" OWNER TO :"owner";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
GRANT ALL ON DATABASE :"role" TO :"owner";
GRANT CONNECT ON DATABASE :"role" TO :"role";

\connect :role
-- before PostgreSQL 15 anybody could make tables here, and it belonged to nobody in particular
ALTER SCHEMA public OWNER TO :"owner";
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
\if :is_superuser
\elif :was_member
\else
  REVOKE :"owner" FROM CURRENT_USER;
\endif
