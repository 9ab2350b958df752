"""Who may do what: every route × method × person × object, in one table. A route that is not in it fails."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from snapshot import changed, dump
from world import CAST, CONFIDENTIAL, DISCARDED, HUSHED, MISSING, World, stand_up

# `in` is to the sign-in: 302 there and back for GET, 401 with a link there for POST. The other cells are statuses.
# The stranger is a member who is not in the private topic; in the secret one is nobody of the cast.
# What is `members` is the member's own and others' for the rest; `readers` was written before a demotion.
TABLE = """
endpoint              method object                                 anonymous reader member editor admin stranger
files.logo            GET    -                                      404       404    404    404    404   404
static                GET    style                                  200       200    200    200    200   200
static                GET    missing                                404       404    404    404    404   404
bootstrap.static      GET    style                                  200       200    200    200    200   200
bootstrap.static      GET    missing                                404       404    404    404    404   404
health.live           GET    -                                      200       200    200    200    200   200
health.ready          GET    -                                      200       200    200    200    200   200
feeds.atom            GET    -                                      404       404    404    404    404   404
feeds.calendar        GET    -                                      404       404    404    404    404   404
health.metrics        GET    -                                      200       200    200    200    200   200

docs.static           GET    style                                  200       200    200    200    200   200
docs.openapi          GET    -                                      200       200    200    200    200   200
docs.show             GET    -                                      200       200    200    200    200   200

api.get_posts         GET    -                                      401       200    200    200    200   200
api.get_posts         GET    page                                   401       200    200    200    200   200
api.create_post       POST   -                                      401       403    201    201    201   201
api.create_post       POST   page                                   401       403    403    201    201   403
api.get_post          GET    members,editors,readers,page           401       200    200    200    200   200
api.get_post          GET    private                                401       200    200    200    200   404
api.get_post          GET    secret,deleted,binned,missing          401       404    404    404    404   404
api.get_post          GET    draft                                  401       404    200    404    404   404
api.get_post          GET    scheduled                              401       404    200    200    200   404
api.change_post       PATCH  members                                401       403    200    200    200   403
api.change_post       PATCH  editors,readers,page                   401       403    403    200    200   403
api.change_post       PATCH  private                                401       403    200    200    200   404
api.change_post       PATCH  secret,deleted,missing                 401       403    404    404    404   404
api.change_post       PATCH  draft                                  401       403    200    404    404   404
api.change_post       PATCH  scheduled                              401       403    200    200    200   404
api.remove_post       DELETE members                                401       403    204    204    204   403
api.remove_post       DELETE editors,readers,page                   401       403    403    204    204   403
api.remove_post       DELETE private                                401       403    204    204    204   404
api.remove_post       DELETE secret,deleted,missing                 401       403    404    404    404   404
api.remove_post       DELETE draft                                  401       403    204    404    404   404
api.get_comments      GET    members,editors,readers,page           401       200    200    200    200   200
api.get_comments      GET    private                                401       200    200    200    200   404
api.get_comments      GET    secret,deleted,binned,missing          401       404    404    404    404   404
api.create_comment    POST   members,editors,readers,page           401       403    201    201    201   201
api.create_comment    POST   draft                                  401       403    403    404    404   404
api.create_comment    POST   private                                401       403    201    201    201   404
api.create_comment    POST   secret,deleted,missing                 401       403    404    404    404   404
api.get_comment       GET    members,editors,readers                401       200    200    200    200   200
api.get_comment       GET    private                                401       200    200    200    200   404
api.get_comment       GET    secret,deleted,below_deleted,missing   401       404    404    404    404   404
api.change_comment    PATCH  members                                401       403    200    403    403   403
api.change_comment    PATCH  editors                                401       403    403    200    403   403
api.change_comment    PATCH  readers                                401       403    403    403    403   403
api.change_comment    PATCH  private                                401       403    200    403    403   404
api.change_comment    PATCH  secret,deleted,below_deleted,missing   401       403    404    404    404   404
api.remove_comment    DELETE members                                401       403    204    204    204   403
api.remove_comment    DELETE editors,readers                        401       403    403    204    204   403
api.remove_comment    DELETE private,deleted                        401       403    204    204    204   404
api.remove_comment    DELETE secret,below_deleted,missing           401       403    404    404    404   404
api.get_topics        GET    -                                      401       200    200    200    200   200
api.create_topic      POST   -                                      401       403    403    201    201   403
api.change_topic      PUT    open,private                           401       403    403    200    200   403
api.change_topic      PUT    secret,merged,missing                  401       403    403    404    404   403
api.remove_topic      DELETE open,private,binned                    401       403    403    204    204   403
api.remove_topic      DELETE secret,merged,missing                  401       403    403    404    404   403
api.get_people        GET    -                                      401       200    200    200    200   200
api.get_person        GET    own,other                              401       200    200    200    200   200
api.get_person        GET    gone                                   401       404    404    404    200   404
api.get_person        GET    missing                                401       404    404    404    404   404
api.get_me            GET    -                                      401       200    200    200    200   200
api.get_attachments   GET    -                                      401       200    200    200    200   200
api.upload_attachment POST   -                                      401       403    201    201    201   201
api.get_content       GET    members,readers,comment,picture        401       200    200    200    200   200
api.get_content       GET    private                                401       200    200    200    200   404
api.get_content       GET    unbound                                401       404    200    404    404   404
api.get_content       GET    secret,deleted,removed,gone,missing    401       404    404    404    404   404
api.remove_attachment DELETE members,comment                        401       403    204    204    204   403
api.remove_attachment DELETE readers                                401       403    403    204    204   403
api.remove_attachment DELETE private                                401       403    204    204    204   404
api.remove_attachment DELETE unbound                                401       404    204    404    404   404
api.remove_attachment DELETE secret,deleted,gone,missing            401       404    404    404    404   404
api.get_owed          GET    -                                      401       200    200    200    200   200
api.get_acknowledgements   GET  members                             401       403    200    200    200   403
api.get_acknowledgements   GET  must,editors,page                   401       403    403    200    200   403
api.get_acknowledgements   GET  private                             401       403    200    200    200   404
api.get_acknowledgements   GET  secret,deleted,missing              401       404    404    404    404   404
api.create_acknowledgement POST must                                401       204    204    204    204   204
api.create_acknowledgement POST members,editors,readers,page        401       422    422    422    422   422
api.create_acknowledgement POST private                             401       422    422    422    422   404
api.create_acknowledgement POST secret,deleted,missing              401       404    404    404    404   404
api.get_notifications  GET    -                                     401       200    200    200    200   200
api.read_notifications POST   -                                     401       204    204    204    204   204
api.get_hits          GET    asked                                  401       200    200    200    200   200
api.get_activity      GET    -                                      401       403    403    403    200   403

auth.setup            GET    -                                      404       404    404    404    404   404
auth.setup            POST   -                                      404       404    404    404    404   404
auth.restore_backup   GET    -                                      404       404    404    404    404   404
auth.restore_backup   POST   -                                      404       404    404    404    404   404
auth.login            GET    -                                      200       302    302    302    302   302
auth.login            POST   -                                      303       303    303    303    303   303
auth.login_code       GET    -                                      302       302    302    302    302   302
auth.login_code       POST   -                                      302       302    302    302    302   302
auth.reset            GET    -                                      200       200    200    200    200   200
auth.reset            POST   -                                      200       200    200    200    200   200
auth.reset_by_link    GET    keepers                                200       200    200    200    200   200
auth.reset_by_link    GET    missing                                410       410    410    410    410   410
auth.reset_by_link    POST   keepers                                303       303    303    303    303   303
auth.reset_by_link    POST   missing                                410       410    410    410    410   410
auth.start_oidc       POST   -                                      404       404    404    404    404   404
auth.finish_oidc      GET    -                                      404       404    404    404    404   404
auth.logout           POST   -                                      in        303    303    303    303   303
auth.register         GET    -                                      404       404    404    404    404   404
auth.register         POST   -                                      404       404    404    404    404   404
auth.accept_invitation GET   invitation                             200       200    200    200    200   200
auth.accept_invitation GET   missing                                410       410    410    410    410   410
auth.accept_invitation POST  invitation                             303       303    303    303    303   303
auth.accept_invitation POST  missing                                410       410    410    410    410   410

account.profile       GET    -                                      in        200    200    200    200   200
account.profile       POST   -                                      in        303    303    303    303   303
account.export        POST   -                                      in        200    200    200    200   200
account.appearance    GET    -                                      in        200    200    200    200   200
account.appearance    POST   -                                      in        303    303    303    303   303
account.notifications GET    -                                      in        200    200    200    200   200
account.notifications POST   -                                      in        303    303    303    303   303
account.password      GET    -                                      in        200    200    200    200   200
account.password      POST   -                                      in        303    303    303    303   303
account.security      GET    -                                      in        200    200    200    200   200
account.security      POST   -                                      in        422    422    422    422   422
account.sessions      GET    -                                      in        200    200    200    200   200
account.end_others    POST   -                                      in        303    303    303    303   303
account.end_session   POST   own                                    in        303    303    303    303   303
account.end_session   POST   other,missing                          in        404    404    404    404   404
account.tokens        GET    -                                      in        200    200    200    200   200
account.tokens        POST   -                                      in        200    200    200    200   200
account.revoke_token  POST   own                                    in        303    303    303    303   303
account.revoke_token  POST   other,missing                          in        404    404    404    404   404
account.unsubscribe   GET    reader                                 200       200    200    200    200   200
account.unsubscribe   GET    missing                                404       404    404    404    404   404
account.unsubscribe   POST   reader                                 200       200    200    200    200   200
account.unsubscribe   POST   missing                                404       404    404    404    404   404

posts.index           GET    -                                      in        200    200    200    200   200
posts.handbook        GET    -                                      in        200    200    200    200   200
posts.find_page       GET    -                                      in        404    404    404    404   404
posts.find_page       GET    hushed                                 in        404    404    302    302   404
posts.titles          GET    -                                      in        200    200    200    200   200
posts.find_page       GET    titled                                 in        302    302    302    302   302
posts.show            GET    members,editors,readers,page           in        200    200    200    200   200
posts.show            GET    private                                in        200    200    200    200   404
posts.show            GET    secret,deleted,binned,missing          in        404    404    404    404   404
posts.show            GET    draft                                  in        404    200    404    404   404
posts.show            GET    scheduled                              in        404    200    200    200   404
posts.drafts          GET    -                                      in        403    200    200    200   200
posts.autosave        POST   -                                      in        403    200    200    200   200
posts.autosave        POST   draft                                  in        403    200    404    404   404
posts.autosave        POST   members                                in        403    422    422    422   403
posts.autosave        POST   scheduled                              in        403    422    422    422   404
posts.autosave        POST   secret,deleted,missing                 in        403    404    404    404   404
posts.new             GET    -                                      in        403    200    200    200   200
posts.new             GET    page                                   in        403    403    200    200   403
posts.new             POST   -                                      in        403    303    303    303   303
posts.new             POST   page                                   in        403    403    303    303   403
posts.preview         POST   -                                      in        403    200    200    200   200
posts.edit            GET    members                                in        403    200    200    200   403
posts.edit            GET    editors,readers,page                   in        403    403    200    200   403
posts.edit            GET    private                                in        403    200    200    200   404
posts.edit            GET    secret,deleted,missing                 in        403    404    404    404   404
posts.edit            POST   members                                in        403    303    303    303   403
posts.edit            POST   editors,readers,page                   in        403    403    303    303   403
posts.edit            POST   private                                in        403    303    303    303   404
posts.edit            POST   secret,deleted,missing                 in        403    404    404    404   404
posts.edit            GET    draft                                  in        403    200    404    404   404
posts.edit            GET    scheduled                              in        403    200    200    200   404
posts.edit            POST   draft                                  in        403    303    404    404   404
posts.edit            POST   scheduled                              in        403    303    303    303   404
posts.delete          POST   members                                in        403    303    303    303   403
posts.delete          POST   editors,readers,page                   in        403    403    303    303   403
posts.delete          POST   private,deleted                        in        403    303    303    303   404
posts.delete          POST   secret,missing                         in        403    404    404    404   404
posts.restore         POST   members                                in        403    303    303    303   403
posts.restore         POST   editors,readers,page                   in        403    403    303    303   403
posts.restore         POST   private,deleted                        in        403    303    303    303   404
posts.restore         POST   secret,missing                         in        403    404    404    404   404
posts.delete          POST   draft                                  in        403    303    404    404   404
posts.delete          POST   scheduled                              in        403    303    303    303   404
posts.restore         POST   draft                                  in        403    303    404    404   404
posts.pin             POST   members,editors,readers,private        in        403    403    303    303   403
posts.pin             POST   page                                   in        403    403    422    422   403
posts.pin             POST   secret,deleted,missing                 in        403    403    404    404   403
posts.acknowledge     POST   must                                   in        303    303    303    303   303
posts.acknowledge     POST   members,editors,readers,page           in        422    422    422    422   422
posts.acknowledge     POST   private                                in        422    422    422    422   404
posts.acknowledge     POST   secret,deleted,missing                 in        404    404    404    404   404
posts.must_read       GET    members,must,page,scheduled            in        403    403    200    200   403
posts.must_read       GET    draft,secret,deleted,missing           in        403    403    404    404   403
posts.must_read       POST   members,must,page,scheduled            in        403    403    303    303   403
posts.must_read       POST   draft,secret,deleted,missing           in        403    403    404    404   403
posts.end_must_read   POST   members,must,page,scheduled            in        403    403    303    303   403
posts.end_must_read   POST   draft,secret,deleted,missing           in        403    403    404    404   403
posts.report          GET    members                                in        403    200    200    200   403
posts.report          GET    must,editors,page                      in        403    403    200    200   403
posts.report          GET    private                                in        403    200    200    200   404
posts.report          GET    secret,deleted,missing                 in        404    404    404    404   404
posts.report_csv      GET    members                                in        403    200    200    200   403
posts.report_csv      GET    must,editors,page                      in        403    403    200    200   403
posts.report_csv      GET    private                                in        403    200    200    200   404
posts.report_csv      GET    secret,deleted,missing                 in        404    404    404    404   404
posts.remind          POST   must                                   in        403    403    303    303   403
posts.remind          POST   members                                in        403    422    422    422   403
posts.remind          POST   private                                in        403    422    422    422   404
posts.remind          POST   secret,deleted,missing                 in        403    404    404    404   404
posts.comment         POST   members,editors,readers,page           in        403    303    303    303   303
posts.comment         POST   draft                                  in        403    403    404    404   404
posts.comment         POST   scheduled                              in        403    403    403    403   404
posts.comment         POST   private                                in        403    303    303    303   404
posts.comment         POST   secret,deleted,missing                 in        403    404    404    404   404
posts.show_comment    GET    members,editors,readers                in        302    302    302    302   302
posts.show_comment    GET    private                                in        302    302    302    302   404
posts.show_comment    GET    secret,deleted,below_deleted,missing   in        404    404    404    404   404
posts.edit_comment    GET    members                                in        403    200    403    403   403
posts.edit_comment    GET    editors                                in        403    403    200    403   403
posts.edit_comment    GET    readers                                in        403    403    403    403   403
posts.edit_comment    GET    private                                in        403    200    403    403   404
posts.edit_comment    GET    secret,deleted,below_deleted,missing   in        403    404    404    404   404
posts.edit_comment    POST   members                                in        403    303    403    403   403
posts.edit_comment    POST   editors                                in        403    403    303    403   403
posts.edit_comment    POST   readers                                in        403    403    403    403   403
posts.edit_comment    POST   private                                in        403    303    403    403   404
posts.edit_comment    POST   secret,deleted,below_deleted,missing   in        403    404    404    404   404
posts.delete_comment  POST   members                                in        403    303    303    303   403
posts.delete_comment  POST   editors,readers                        in        403    403    303    303   403
posts.delete_comment  POST   private,deleted                        in        403    303    303    303   404
posts.delete_comment  POST   secret,below_deleted,missing           in        403    404    404    404   404
posts.restore_comment POST   members                                in        403    303    303    303   403
posts.restore_comment POST   editors,readers                        in        403    403    303    303   403
posts.restore_comment POST   private,deleted                        in        403    303    303    303   404
posts.restore_comment POST   secret,below_deleted,missing           in        403    404    404    404   404
posts.react           GET    members,editors,readers,page           in        200    200    200    200   200
posts.react           GET    private                                in        200    200    200    200   404
posts.react           GET    draft,scheduled                        in        404    404    404    404   404
posts.react           GET    secret,deleted,binned,missing          in        404    404    404    404   404
posts.react           POST   members,editors,readers,page           in        303    303    303    303   303
posts.react           POST   private                                in        303    303    303    303   404
posts.react           POST   draft,scheduled                        in        404    404    404    404   404
posts.react           POST   secret,deleted,binned,missing          in        404    404    404    404   404
posts.react_comment   GET    members,editors,readers                in        200    200    200    200   200
posts.react_comment   GET    private                                in        200    200    200    200   404
posts.react_comment   GET    secret,deleted,below_deleted,missing   in        404    404    404    404   404
posts.react_comment   POST   members,editors,readers                in        303    303    303    303   303
posts.react_comment   POST   private                                in        303    303    303    303   404
posts.react_comment   POST   secret,deleted,below_deleted,missing   in        404    404    404    404   404
posts.history         GET    members,editors,readers,page           in        200    200    200    200   200
posts.history         GET    private                                in        200    200    200    200   404
posts.history         GET    secret,deleted,missing                 in        404    404    404    404   404
posts.compare         GET    members,editors,readers,page           in        302    302    302    302   302
posts.compare         GET    private                                in        302    302    302    302   404
posts.compare         GET    secret,deleted,missing                 in        404    404    404    404   404
posts.show_version    GET    members,editors,readers,page           in        200    200    200    200   200
posts.show_version    GET    private                                in        200    200    200    200   404
posts.show_version    GET    secret,deleted,missing                 in        404    404    404    404   404
posts.restore_version POST   members                                in        403    303    303    303   403
posts.restore_version POST   editors,readers,page                   in        403    403    303    303   403
posts.restore_version POST   private                                in        403    303    303    303   404
posts.restore_version POST   secret,deleted,missing                 in        403    404    404    404   404
posts.review          GET    -                                      in        200    200    200    200   200
posts.still_accurate     POST   page                                   in        303    403    303    303   403
posts.still_accurate     POST   members,private,secret,deleted,missing in        404    404    404    404   404
posts.arrange         GET    open,private                           in        403    403    200    200   403
posts.arrange         GET    secret,merged,missing                  in        403    403    404    404   403
posts.arrange         POST   open,private                           in        403    403    303    303   403
posts.arrange         POST   secret,merged,missing                  in        403    403    404    404   403

topics.index          GET    -                                      in        200    200    200    200   200
topics.show           GET    open                                   in        200    200    200    200   200
topics.show           GET    private                                in        200    200    200    200   404
topics.show           GET    merged                                 in        301    301    301    301   301
topics.show           GET    merged_private                         in        301    301    301    301   404
topics.show           GET    secret,binned,missing                  in        404    404    404    404   404
topics.manage         GET    -                                      in        403    403    200    200   403
topics.manage         POST   -                                      in        403    403    303    303   403
topics.edit           GET    open,private                           in        403    403    200    200   403
topics.edit           GET    secret,merged,missing                  in        403    403    404    404   403
topics.edit           POST   open,private                           in        403    403    303    303   403
topics.edit           POST   secret,merged,missing                  in        403    403    404    404   403
topics.make_private   POST   open,private                           in        403    403    303    303   403
topics.make_private   POST   secret,merged,missing                  in        403    403    404    404   403
topics.make_open      POST   open,private                           in        403    403    303    303   403
topics.make_open      POST   secret,merged,missing                  in        403    403    404    404   403
topics.add_member     POST   private                                in        403    403    303    303   403
topics.add_member     POST   open                                   in        403    403    422    422   403
topics.add_member     POST   secret,merged,missing                  in        403    403    404    404   403
topics.remove_member  POST   private                                in        403    403    303    303   403
topics.remove_member  POST   secret,merged,missing                  in        403    403    404    404   403
topics.move           POST   open,private                           in        403    403    303    303   403
topics.move           POST   secret,merged,missing                  in        403    403    404    404   403
topics.merge          GET    open,private                           in        403    403    200    200   403
topics.merge          GET    secret,merged,missing                  in        403    403    404    404   403
topics.merge          POST   open,private                           in        403    403    303    303   403
topics.merge          POST   secret,merged,missing                  in        403    403    404    404   403
topics.delete         POST   open,private,binned                    in        403    403    303    303   403
topics.delete         POST   secret,merged,missing                  in        403    403    404    404   403
topics.restore        POST   binned,open,private                    in        403    403    303    303   403
topics.restore        POST   secret,merged,missing                  in        403    403    404    404   403
topics.join           POST   open,private,secret                    in        403    403    403    303   403
topics.join           POST   merged,missing                         in        403    403    403    404   403

people.index          GET    -                                      in        200    200    200    200   200
people.suggest        GET    -                                      in        200    200    200    200   200
people.show           GET    own,other                              in        200    200    200    200   200
people.show           GET    gone                                   in        404    404    404    200   404
people.show           GET    kitchen                                in        200    200    200    200   200
people.show           GET    missing                                in        404    404    404    404   404
people.card           GET    own,other                              in        200    200    200    200   200
people.card           GET    gone                                   in        404    404    404    200   404
people.card           GET    missing                                in        404    404    404    404   404

files.upload          POST   -                                      in        403    200    200    200   200
files.show            GET    members,readers,comment,picture        in        200    200    200    200   200
files.show            GET    private                                in        200    200    200    200   404
files.show            GET    unbound                                in        404    200    404    404   404
files.show            GET    secret,deleted,removed,gone,missing    in        404    404    404    404   404
files.picture         GET    members,readers,comment,picture        in        200    200    200    200   200
files.picture         GET    private                                in        200    200    200    200   404
files.picture         GET    unbound                                in        404    200    404    404   404
files.picture         GET    secret,deleted,removed,gone,missing    in        404    404    404    404   404
files.delete          POST   members,comment                        in        403    303    303    303   403
files.delete          POST   readers                                in        403    403    303    303   403
files.delete          POST   picture                                in        403    303    403    303   403
files.delete          POST   private                                in        403    303    303    303   404
files.delete          POST   unbound                                in        404    303    404    404   404
files.delete          POST   removed                                in        404    303    303    303   404
files.delete          POST   secret,deleted,gone,missing            in        404    404    404    404   404
files.restore         POST   members,comment                        in        403    303    303    303   403
files.restore         POST   readers                                in        403    403    303    303   403
files.restore         POST   picture                                in        403    303    403    303   403
files.restore         POST   private                                in        403    303    303    303   404
files.restore         POST   unbound                                in        404    303    404    404   404
files.restore         POST   removed                                in        404    303    303    303   404
files.restore         POST   secret,deleted,gone,missing            in        404    404    404    404   404

search.index          GET    -                                      in        200    200    200    200   200

notifications.index   GET    -                                      in        200    200    200    200   200
notifications.poll    GET    -                                      in        200    200    200    200   200
notifications.read_all     POST -                                   in        303    303    303    303   303
notifications.follow_post  POST members,editors,readers,page        in        303    303    303    303   303
notifications.follow_post  POST private                             in        303    303    303    303   404
notifications.follow_post  POST secret,deleted,binned,missing       in        404    404    404    404   404
notifications.follow_post  POST draft                               in        404    303    404    404   404
notifications.follow_post  POST scheduled                           in        404    303    303    303   404
notifications.follow_topic POST open                                in        303    303    303    303   303
notifications.follow_topic POST private                             in        303    303    303    303   404
notifications.follow_topic POST secret,binned,merged,missing        in        404    404    404    404   404

admin.index           GET    -                                      in        403    403    403    200   403
admin.jobs            GET    -                                      in        403    403    403    200   403
admin.run_job         POST   empty-bin                              in        403    403    403    303   403
admin.run_job         POST   missing                                in        403    403    403    404   403
admin.people          GET    -                                      in        403    403    403    200   403
admin.new_person      GET    -                                      in        403    403    403    200   403
admin.new_person      POST   -                                      in        403    403    403    303   403
admin.edit_person     GET    own,other,gone                         in        403    403    403    200   403
admin.edit_person     GET    missing                                in        403    403    403    404   403
admin.edit_person     POST   own,other,gone                         in        403    403    403    303   403
admin.edit_person     POST   missing                                in        403    403    403    404   403
admin.set_role        POST   other,gone                             in        403    403    403    303   403
admin.set_role        POST   own                                    in        403    403    403    422   403
admin.set_role        POST   missing                                in        403    403    403    404   403
admin.deactivate      POST   other,gone                             in        403    403    403    303   403
admin.deactivate      POST   own                                    in        403    403    403    422   403
admin.deactivate      POST   missing                                in        403    403    403    404   403
admin.reactivate      POST   other,gone,own                         in        403    403    403    303   403
admin.reactivate      POST   missing                                in        403    403    403    404   403
admin.make_link       POST   other,gone                             in        403    403    403    200   403
admin.make_link       POST   own                                    in        403    403    403    422   403
admin.make_link       POST   missing                                in        403    403    403    404   403
admin.reset_second_factor POST other,gone                           in        403    403    403    303   403
admin.reset_second_factor POST own                                  in        403    403    403    403   403
admin.reset_second_factor POST missing                              in        403    403    403    404   403
admin.export_person   POST   own,other,gone                         in        403    403    403    200   403
admin.export_person   POST   missing                                in        403    403    403    404   403
admin.erase_person    GET    other,gone                             in        403    403    403    200   403
admin.erase_person    GET    missing                                in        403    403    403    404   403
admin.erase_person    POST   other,gone                             in        403    403    403    303   403
admin.erase_person    POST   own                                    in        403    403    403    422   403
admin.erase_person    POST   missing                                in        403    403    403    404   403
admin.groups          GET    -,kitchen                              in        403    403    403    200   403
admin.groups          GET    missing                                in        403    403    403    404   403
admin.groups          POST   -,kitchen                              in        403    403    403    303   403
admin.groups          POST   missing                                in        403    403    403    404   403
admin.delete_group    POST   kitchen                                in        403    403    403    303   403
admin.delete_group    POST   missing                                in        403    403    403    404   403
admin.people_csv      GET    -                                      in        403    403    403    200   403
admin.import_people   GET    -                                      in        403    403    403    200   403
admin.import_people   POST   -                                      in        403    403    403    303   403
admin.invitations     GET    -                                      in        403    403    403    200   403
admin.invitations     POST   -                                      in        403    403    403    200   403
admin.withdraw_invitation POST invitation                           in        403    403    403    303   403
admin.withdraw_invitation POST missing                              in        403    403    403    404   403
admin.decline         POST   waiting                                in        403    403    403    303   403
admin.decline         POST   own,other,gone,missing                 in        403    403    403    404   403
admin.bin             GET    -                                      in        403    403    200    200   403
admin.show_binned     GET    deleted                                in        403    403    200    200   403
admin.show_binned     GET    members,private,secret,draft,binned,missing in   403    403    404    404   403
admin.show_binned_comment GET deleted                               in        403    403    200    200   403
admin.show_binned_comment GET members,secret,below_deleted,missing  in        403    403    404    404   403
admin.empty_bin       GET    -                                      in        403    403    403    200   403
admin.empty_bin       POST   -                                      in        403    403    403    303   403
admin.mail            GET    -                                      in        403    403    403    200   403
admin.mail            POST   -                                      in        403    403    403    422   403
admin.send_again      POST   failed                                 in        403    403    403    303   403
admin.send_again      POST   missing                                in        403    403    403    404   403
admin.settings        GET    -                                      in        403    403    403    200   403
admin.save_look       POST   -                                      in        403    403    403    303   403
admin.save_settings   POST   missing                                in        403    403    403    404   403
admin.save_settings   POST   site,announcement,time-zone,sign-up    in        403    403    403    303   403
admin.save_settings   POST   bin,activity,second-factor             in        403    403    403    303   403
admin.activity        GET    -                                      in        403    403    403    200   403
admin.activity_csv    GET    -                                      in        403    403    403    200   403
admin.backups         GET    -                                      in        403    403    403    200   403
admin.backups         POST   -                                      in        403    403    403    303   403
admin.download_backup POST   made                                   in        403    403    403    200   403
admin.download_backup POST   missing                                in        403    403    403    404   403
"""

SHARED_STATIC = {"static": "app.css", "bootstrap.static": "css/bootstrap.min.css", "docs.static": "swagger-ui.css"}
AUTOMATIC = {"HEAD", "OPTIONS"}
ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS")
BINS = (
    "admin.bin",
    "admin.show_binned",
    "admin.show_binned_comment",
    "admin.activity",
    "admin.activity_csv",
    "api.get_activity",
)
# Objects of addresses that name none: what is added to the query.
STANDS_ALONE = {
    "-": {},
    "page": {"kind": "page"},
    "titled": {"title": "the PLAIN page"},
    "hushed": {"title": "the unnamed page"},
    "asked": {"q": "text"},
}


class Cell(NamedTuple):
    """What one person may expect of one object."""

    person: str
    target: str
    expected: str

    @property
    def writes(self) -> bool:
        return self.expected.isdigit() and int(self.expected) < 400


def read_table() -> dict[tuple[str, str], list[Cell]]:
    cells = defaultdict(list)
    header, *lines = [line.split() for line in TABLE.strip().splitlines() if line]
    assert tuple(header[3:]) == CAST
    for endpoint, method, targets, *expected in lines:
        for target in targets.split(","):
            pairs = zip(CAST, expected, strict=True)
            cells[endpoint, method] += [Cell(person, target, what) for person, what in pairs]
    return cells


MATRIX = read_table()


@pytest.fixture
def world(app: Flask, cheap_hashes: None) -> World:
    return stand_up(app)


def address(world: World, endpoint: str, cell: Cell) -> str:
    """The address of an object; what is the person's `own` and what is `other`s' depends on the person."""
    wanted = {argument for rule in world.app.url_map.iter_rules(endpoint) for argument in rule.arguments}
    named = {"own": cell.person, "other": "keeper"}.get(cell.target, cell.target)
    tokens = world.reset_links if endpoint == "auth.reset_by_link" else world.stop_links | world.invitation_links
    known: dict[str, Any] = {
        "post_id": world.posts.get(named),
        "comment_id": world.comments.get(named),
        "topic_id": world.topics.get(named),
        "slug": world.slugs.get(named),
        "user_id": world.people.get(named, world.people["reader"]),
        "group_id": world.groups.get(named),
        "username": named,
        "number": 1,
        "file_id": world.files.get(named),
        "mail_id": world.mails.get(named),
        "token": tokens.get(named),
        "invitation_id": world.invitations.get(named),
        "name": "a file.png",
        "job": named,
        "section": named,
        "size": "medium",
        "backup_name": f"{named}.zip",
        "sign_in_id": world.sign_ins.get(named, MISSING),
        "token_id": world.api_tokens.get(named, MISSING),
        "filename": SHARED_STATIC.get(endpoint) if named == "style" else "missing.css",
    }
    chosen = {name: known[name] for name in wanted if known[name] is not None}
    chosen = chosen or STANDS_ALONE[cell.target]
    return world.app.url_map.bind("localhost").build(endpoint, chosen)


def ask(world: World, endpoint: str, method: str, cell: Cell) -> Any:
    path, browser = address(world, endpoint, cell), world.browser(cell.person)
    if endpoint.startswith("api.") and method not in ("GET", "HEAD", "OPTIONS"):
        return ask_api(world, endpoint, method, cell)
    if method != "POST":
        return browser.open(path, method=method, buffered=True)
    return browser.submit(path, world.filling(endpoint) | STANDS_ALONE.get(cell.target, {}), buffered=True)


def ask_api(world: World, endpoint: str, method: str, cell: Cell) -> Any:
    """Ask as a script of a page would."""
    browser, filled = world.browser(cell.person), world.filling(endpoint)
    headers = {"X-CSRFToken": browser.csrf_token(), "If-Match": "*"}
    said = {name: int(value) if name.endswith("_id") else value for name, value in filled.items()}
    path, query, _ = address(world, endpoint, cell).partition("?")
    body = {"json": said | (STANDS_ALONE[cell.target] if query else {})}
    if endpoint == "api.upload_attachment":
        body = {"data": filled}
    return browser.open(path, method=method, headers=headers, **body)


def bare(answer: Any) -> str:
    """A page without what differs each time."""
    without_id = re.sub(r'<code>[0-9a-f]{16}</code>| aria-current="page"|"request_id": "[0-9a-f]+"', "", answer.text)
    return re.sub(r'"csrf.token" (value|content)="[^"]+"', "", without_id)


def nothing_here(world: World, method: str, person: str, within: str = "") -> str:
    """What a person is told at an address that cannot exist."""
    asked = (within + method, person)
    if asked not in world.nothing_here:
        browser, path = world.browser(person), f"{within}/no/such/page"
        answer = browser.submit(path) if method == "POST" else browser.open(path, method=method)
        world.nothing_here[asked] = bare(answer)
    return world.nothing_here[asked]


def complaint(world: World, endpoint: str, method: str, cell: Cell) -> str | None:
    """What is wrong with the answer to one cell, None when nothing is."""
    answer = ask(world, endpoint, method, cell)
    text = answer.data.decode(errors="replace")  # a backup is no text
    if HUSHED in text:
        return "tells what is in a topic of others"
    in_the_bin = endpoint in BINS and cell.person in ("editor", "admin")
    redirected = cell.expected == "in" or answer.status_code == 303  # to an address, which bears a topic's name
    if DISCARDED in text and not in_the_bin and not redirected:
        return "tells what is deleted"
    if CONFIDENTIAL in text.lower() and cell.person in ("anonymous", "stranger") and cell.expected != "in":
        return "tells what is in the private topic"
    if cell.expected == "in":
        return not_to_the_sign_in(answer, method, address(world, endpoint, cell))
    if answer.status_code != int(cell.expected):
        return f"answered {answer.status_code}"
    within = "/api/v1" if endpoint.startswith("api.") else ""
    if answer.status_code == 404 and bare(answer) != nothing_here(world, method, cell.person, within):
        return "404 tells more than 'Page not found'"
    if answer.status_code == 403 and "No access" not in text:
        return "403 is not the site's page"
    return None


def not_to_the_sign_in(answer: Any, method: str, path: str) -> str | None:
    if method == "POST":
        sound = answer.status_code == 401 and 'href="/login"' in answer.text
        return None if sound else f"answered {answer.status_code} without a link to the sign-in"
    target = urlsplit(answer.headers.get("Location", ""))
    back = parse_qs(target.query).get("next", ["/"])
    if answer.status_code != 302 or target.netloc or target.path != "/login" or back != [path]:
        return f"answered {answer.status_code} to {target.geturl()!r}"
    return None


@pytest.mark.parametrize(("endpoint", "method"), MATRIX, ids=lambda part: part)
def test_everybody_may_do_what_the_table_says_and_no_more(world: World, endpoint: str, method: str) -> None:
    cells = MATRIX[endpoint, method]
    changing = sorted((cell for cell in cells if cell.writes and method != "GET"), key=lambda cell: cell.person)
    found = {cell: complaint(world, endpoint, method, cell) for cell in cells if cell not in changing}
    marks = ("read_marks",) if endpoint == "posts.show" else ()  # who looks at a post has read it
    if changes := changed(world.rows, dump(), but=marks):
        found[Cell("somebody", "something", "no change")] = f"wrote to {changes} while looking or being refused"
    for _person, theirs in groupby(changing, key=lambda cell: cell.person):
        found |= {cell: complaint(world, endpoint, method, cell) for cell in theirs}
        world.restore()  # what one has changed, the next shall find as it was
    wrong = [f"{cell.person} on {cell.target}: {cell.expected}, but it {what}" for cell, what in found.items() if what]
    assert not wrong, f"{method} {endpoint}\n" + "\n".join(wrong)


def test_every_route_and_method_is_in_the_table_and_nothing_else(app: Flask) -> None:
    routes = {(rule.endpoint, method) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    declared = set(MATRIX)
    assert {(endpoint, method) for endpoint, method in routes if method not in AUTOMATIC} == declared


def test_no_address_takes_a_method_that_it_does_not_have(world: World) -> None:
    wrong = []
    for endpoint in {endpoint for endpoint, _method in MATRIX}:
        cell = next(cells[0] for (name, _), cells in MATRIX.items() if name == endpoint)._replace(person="admin")
        path = address(world, endpoint, cell)
        rules = {rule.rule for rule in world.app.url_map.iter_rules(endpoint)}
        at_address = (rule for rule in world.app.url_map.iter_rules() if rule.rule in rules)
        allowed = {method for rule in at_address for method in rule.methods or ()}
        for method in set(ALL_METHODS) - allowed:
            answer = world.browser("admin").open(path, method=method)
            if answer.status_code != 405 or (method != "TRACE" and set(answer.allow) != allowed):
                wrong.append(f"{method} {path}: {answer.status_code}, Allow: {answer.allow}")
    assert not wrong, "\n".join(wrong)
    assert not changed(world.rows, dump())


def test_head_answers_as_get_without_a_body_and_options_tells_methods_only(world: World) -> None:
    wrong = []
    for (endpoint, method), cells in MATRIX.items():
        for cell in (cell for cell in cells[: len(CAST)] if cell.person in ("anonymous", "member", "admin")):
            options = ask(world, endpoint, "OPTIONS", cell)
            if options.status_code != 200 or options.data or not options.headers.get("Allow"):
                wrong.append(f"OPTIONS {endpoint} as {cell.person}: {options.status_code}")
            if method != "GET":
                continue
            head = ask(world, endpoint, "HEAD", cell)
            if head.status_code != (302 if cell.expected == "in" else int(cell.expected)) or head.data:
                wrong.append(f"HEAD {endpoint} as {cell.person}: {head.status_code}")
    assert not wrong, "\n".join(wrong)
    assert not changed(world.rows, dump(), but=("read_marks",))


@pytest.mark.parametrize("person", CAST)
def test_nobody_learns_of_what_they_may_not_see_from_any_list(world: World, person: str) -> None:
    browser = world.browser(person)
    paths = ["/", "/handbook", "/people", "/people/keeper", "/people/member", "/topics/open", "/admin/people"]
    pages = "".join(browser.get(path).text for path in [*paths, "/posts/new", "/admin", "/admin/topics"])
    assert HUSHED not in pages
    assert DISCARDED not in pages
    assert (CONFIDENTIAL in pages) == (person not in ("anonymous", "stranger"))
    assert ("Unnamed" in pages) == (person == "admin"), "only an administrator reads the name of a topic of others"
